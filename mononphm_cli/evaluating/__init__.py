"""The subcommands of `mononphm evaluate`, a file each."""
