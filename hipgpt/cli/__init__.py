"""The `hipgpt` command, one module per subcommand.

Read main, arguments, init, run, generate, tokenize, show_tokens, columns, runs, watch, diff, why, info, export,
restore, prune, kept.
"""
