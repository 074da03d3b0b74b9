"""Command lines, configuration files, messages and exit codes, the same for every command."""

from cli.files import COMMANDS, from_file, read_yaml
from cli.flags import POSITIONAL, Flags, also, as_typed, fields_by_flag, is_positional, other_names
from cli.messages import command_to_type, note
from cli.parser import build_parser, parse
from cli.running import command_line, exit_codes, run_command

__all__ = [
    "COMMANDS",
    "POSITIONAL",
    "Flags",
    "also",
    "as_typed",
    "build_parser",
    "command_line",
    "command_to_type",
    "exit_codes",
    "fields_by_flag",
    "from_file",
    "is_positional",
    "note",
    "other_names",
    "parse",
    "read_yaml",
    "run_command",
]
