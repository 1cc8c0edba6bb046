"""Draws docs/loader.svg, the plot of docs/loader.md, from the figures of `make bench-loader`.

python docs/loader.py [bench-loader.json]        needs: pip install -e ".[demo]"
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "loader", "font.family": "sans-serif", "font.size": 9}
PLACE = Path(__file__).with_name("loader.svg")
COLOURS = {
    "reelgraph": "#0072b2", "keras generator": "#c64d00", "keras PyDataset": "#d98200", "torch DataLoader": "#00875f",
}  # fmt: skip
TITLES = {"arrays": "arrays in memory, 32 px", "jpegs": "JPEGs from disk, 299 px"}


def main() -> None:
    found = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else "bench-loader.json").read_text())
    parts = [part for part in TITLES if part in found]
    figure = Figure((4.2 * len(parts), 5))
    axes = figure.subplots(2, len(parts), sharex=True, squeeze=False)
    for column, part in zip(axes.T, parts, strict=True):
        for name, colour in COLOURS.items():
            rows = [row for row in found[part] if row["name"] == name]
            x = [row["workers"] for row in rows]
            column[0].plot(x, [row["images_per_second"] for row in rows], "o-", color=colour, label=name, markersize=4)
            column[1].plot(x, [100 * row["waits"] for row in rows], "o-", color=colour, markersize=4)
        column[0].set(title=TITLES[part], ylabel="images per second", ylim=(0, None))
        column[1].set(xlabel="workers", ylabel="consumer waits, %", ylim=(0, 100))
        column[1].xaxis.get_major_locator().set_params(integer=True)
        for axis in column:
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(axis="y", linewidth=0.4)
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(PLACE, metadata={"Date": None})
    print(PLACE)


if __name__ == "__main__":
    with rc_context(STYLE):
        main()
