"""What `e2urec plan` prints."""

from collections.abc import Sequence

from rich.console import Console

from ..experiments.memory.moments import PARTS, CommandMemory, MemoryPlan
from .terminal import new_table, print_json, speaker

TIGHT = 0.75
"""Share of the memory above which the rest may be too little for what is not counted."""


def show_memory(plan: MemoryPlan, *, as_json: bool) -> None:
    """The parts of each command at its peak, and what would make it fit."""
    if as_json:
        print_json(plan.as_dict())
        return
    console = Console()
    say = speaker(console)
    say(
        f"{plan.model}: {plan.parameters:,} parameters in {plan.precision}, on {plan.machine.title}"
    )
    _show_parts(console, plan)
    for command in plan.commands:
        for sentence in _sentences(command, plan):
            say(sentence)
    for sentence in plan.sentences:
        say(sentence)


def _show_parts(console: Console, plan: MemoryPlan) -> None:
    headings = [command.command for command in plan.commands]
    table = new_table("Memory of each command at its peak, in GB", headings, first="part")
    peaks = [command.peak for command in plan.commands]
    for part, title in PARTS.items():
        sizes = [peak.parts.get(part, 0) for peak in peaks]
        if any(sizes):
            table.add_row(title, *_cells(sizes))
    table.add_section()
    table.add_row("together", *_cells([peak.total for peak in peaks]))
    console.print(table)


def _cells(sizes: Sequence[int]) -> list[str]:
    return [f"{size / 1e9:.3f}" if size else "–" for size in sizes]


def _sentences(command: CommandMemory, plan: MemoryPlan) -> list[str]:
    """When the peak of a command is, whether it fits, and what would make it fit."""
    peak = command.peak
    share = peak.total / plan.machine.bytes
    line = f"{command.command}: most in {peak.title}, {share:.0%} of the memory"
    if command.fits(plan.machine):
        if share > TIGHT:
            line += "; it may not fit, since what is not counted comes on top"
    elif command.remedy:
        settings = " ".join(f"--set {setting}" for setting in command.remedy)
        line += f"; it does not fit, and would with {settings}"
        if command.command == "unlearn" and "method." in settings:
            line += " (for unlearn itself without 'method.')"
    else:
        line += "; it does not fit, and no setting changes that; take a smaller model"
    sentences = [line]
    if command.disk:
        sentences.append(
            f"{command.command}: up to {command.disk / 1e9:.3g} GB on the disk meanwhile, for "
            "cached lower states (speed.cache_gb)"
        )
    return sentences
