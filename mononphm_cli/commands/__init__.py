"""One module a command, each with a click command named `command`; main.py imports it when it is called."""
