"""Commands of `python -m pipeline` that know models and images: where the command line and the domain meet.

Each module registers its commands when it is imported, and imports what only one command needs in its function.
"""

MODULES: tuple[str, ...] = (
    "pipeline.commands.show_command",
    "pipeline.commands.service_commands",
    "pipeline.commands.prelabel_command",
    "pipeline.commands.container_commands",
    "pipeline.commands.collect_command",
    "pipeline.commands.compare_command",
    "pipeline.commands.sweep_command",
    "pipeline.commands.examine_command",
)
"""The modules with commands, in the order of the help."""
