"""The command line. It may call every other room, and does so lazily: nothing heavy is imported before it is asked."""
