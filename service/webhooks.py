"""Webhooks: signed as Standard Webhooks has it, sent from the outbox, never in a job's way.

https://github.com/standard-webhooks/standard-webhooks: `webhook-id`, `webhook-timestamp`, and `webhook-signature` =
`v1,` + base64(HMAC-SHA256(secret, "id.timestamp.body")), one for each valid secret.
"""

import asyncio
import hmac
import logging
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence

import httpx
from sqlalchemy.exc import SQLAlchemyError

from service.addresses import NotPublic, Resolve, pinned_address, target_of
from service.threads import in_ledger_thread
from worker import ledger

log = logging.getLogger(__name__)

WHOLE_S = 15.0
"""For one delivery, whatever the receiver does."""

GONE = 410
"""A receiver that answers so wants nothing more."""


class Sender:
    """Empties the outbox of one ledger. Several may run; each message is taken by one."""

    def __init__(
        self,
        outbox: ledger.Outbox,
        *,
        allow_private: bool = False,
        resolve: Resolve | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._outbox = outbox
        self._allow_private = allow_private
        self._resolve = resolve
        # No proxy from the environment: it would resolve the name once more, somewhere else.
        self._http = httpx.AsyncClient(trust_env=False, follow_redirects=False, transport=transport)

    async def run(self, poll_s: float) -> None:
        """Send what is due, for ever."""
        while True:
            try:
                sent = await self.send_due()
            except SQLAlchemyError:
                log.warning("the outbox cannot be read", exc_info=True)
                sent = 0
            if not sent:
                await asyncio.sleep(poll_s)

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def send_due(self) -> int:
        """Send what is due now; how many were tried."""
        messages = await in_ledger_thread(self._outbox.take)
        await asyncio.gather(*(self._deliver(message) for message in messages))
        return len(messages)

    async def _deliver(self, message: ledger.Message) -> None:
        """One attempt, noted whatever comes of it."""
        status, error, for_good = 0, "", False
        try:
            async with asyncio.timeout(WHOLE_S):
                status = await self._post(message)
            error, for_good = f"the receiver answered {status}", status == GONE
        except NotPublic as refused:
            error, for_good = str(refused), True
        except TimeoutError:
            error = f"no answer within {WHOLE_S:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as failed:
            error = type(failed).__name__
        if 200 <= status < 300:
            await in_ledger_thread(self._outbox.delivered, message)
            return
        given_up = await in_ledger_thread(self._outbox.failed, message, error, for_good=for_good)
        said = "given up" if given_up else "will be sent again"
        log.warning("a webhook was not delivered: %s; %s", error, said, extra={"job_id": message.job_id})

    async def _post(self, message: ledger.Message) -> int:
        """The status of the answer; its body is not read."""
        target = target_of(message.url, allow_private=self._allow_private)
        address = await pinned_address(target, self._resolve, allow_private=self._allow_private)
        secrets = await in_ledger_thread(self._outbox.secrets_of, message.owner)
        host = f"[{address}]" if ":" in address else address
        headers = {
            "Host": target.host_header,
            "Content-Type": "application/json",
            "User-Agent": "mononphm-webhooks",
            **signed(message.id, int(time.time()), message.body, secrets),
        }
        url = f"{target.scheme}://{host}:{target.port}{target.path}"
        # The certificate is asked of the name, although the connection goes to the address.
        named = {"sni_hostname": target.host}
        async with self._http.stream("POST", url, content=message.body, headers=headers, extensions=named) as answer:
            return answer.status_code


def signed(message_id: str, timestamp: int, body: str, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers by which a receiver knows that a message is ours, and new."""
    content = f"{message_id}.{timestamp}.{body}".encode()
    signatures = [
        "v1," + b64encode(hmac.digest(b64decode(secret.removeprefix("whsec_")), content, "sha256")).decode()
        for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
