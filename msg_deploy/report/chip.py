"""A network on a chip as one HTML page, with the same style as the report of a check."""

from __future__ import annotations

from pathlib import PurePath

from msg_deploy import __version__
from msg_deploy.exporters.chips.target import Core
from msg_deploy.onchip.check import ChipKind, ChipVerdict
from msg_deploy.onchip.fit import Fit
from msg_deploy.onchip.show import MOST_CORES, estimate_lines, meaning, problems, vendor_line
from msg_deploy.report.html import rendered

TONES = {
    ChipKind.EXACT: ("good", "✓✓"),
    ChipKind.CHANGED: ("good", "✓"),
    ChipKind.DIFFERENT: ("fair", "≈"),
    ChipKind.REFUTED: ("bad", "✗"),
    ChipKind.DOES_NOT_FIT: ("bad", "✗"),
    ChipKind.UNKNOWN: ("fair", "?"),
}


def chip_as_html(found: Fit | ChipVerdict) -> str:
    """One page. The same result gives the same bytes.

    Args:
        found: whether a network fits, or what a check on a chip has found.
    """
    fit = found if isinstance(found, Fit) else found.fit
    vendor = ""
    if isinstance(found, ChipVerdict):
        (tone, symbol), answer, text = TONES[found.kind], found.kind.value, meaning(found)
        if found.vendor is not None:
            vendor = vendor_line(found.vendor)
        elif found.without_vendor:
            vendor = f"The vendor's model was not run: {found.without_vendor}."
    else:
        tone, symbol = ("good", "✓") if fit else ("bad", "✗")
        answer = "FITS" if fit else "DOES NOT FIT"
        text = "The chip can hold it." if fit else f"{problems(fit)}."
    chip = Core("the whole chip", (), fit.chip.uses)
    return rendered(
        "chip.html",
        {
            "fit": fit,
            "name": PurePath(fit.name).name,
            "version": __version__,
            "tone": tone,
            "symbol": symbol,
            "answer": answer,
            "meaning": text,
            "vendor": vendor,
            "estimate": list(estimate_lines(fit.estimate)) if fit.estimate else [],
            "cores": ([chip] if chip.uses else []) + list(fit.chip.cores[:MOST_CORES]),
            "more": max(0, len(fit.chip.cores) - MOST_CORES),
        },
    )
