"""The slash commands of `moa chat`. Importing this package registers all of them."""

import moa_cli.chat.commands.context
import moa_cli.chat.commands.editing
import moa_cli.chat.commands.files
import moa_cli.chat.commands.help
import moa_cli.chat.commands.mixture
import moa_cli.chat.commands.turns  # noqa: F401
