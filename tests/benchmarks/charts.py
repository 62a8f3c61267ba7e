# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two kinds of chart, as SVG: bars along an axis, and lines between logarithmic axes."""

import math
from html import escape

OWN = '#c0392b'
OTHER = '#7f8c9b'
LIMIT = '#c8ced6'
COLORS = {'bgloop': OWN, 'glib': '#2c3e50', 'uv': '#2471a3', 'asio': '#8e44ad', 'qt': '#1e8449',
          'bare': '#6b7b7d'}
NAMES = {'glib': 'GLib', 'glib-invoke': 'GLib, invoke', 'uv': 'libuv', 'asio': 'Asio', 'qt': 'Qt',
         'pulse': 'PulseAudio', 'pipewire': 'PipeWire', 'tokio': 'Tokio', 'asyncio-coroutine': 'asyncio, coroutine',
         'pool': 'thread pool', 'bare': 'bare thread', 'bare-spin': 'bare, spinning'}

HEAD = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="sans-serif" font-size="13">\n'
        '<title>{title}</title>\n'
        '<rect width="{width}" height="{height}" fill="white"/>\n'
        '<text x="16" y="26" font-size="15" font-weight="bold">{title}</text>\n')


def text(x, y, words, anchor='start', color='black'):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" stroke="white" stroke-width="4" '
            f'paint-order="stroke">{escape(words)}</text>\n')


def steps(most):
    """Round numbers from 0 to the first that is not below most: four to nine of them."""
    size = 10 ** math.floor(math.log10(most))
    step = next(size * part for part in (0.2, 0.5, 1, 2, 5) if most / (size * part) <= 8)
    return [i * step for i in range(math.ceil(most / step) + 1)]


def bars(title, axis, values):
    """One bar for each system, with its value behind it, above an axis; a line is at 1, what all are compared with."""
    left, top, width, step = 140, 42, 640, 26
    plot_w, plot_h = width - left - 70, step * len(values)
    marks = steps(max(values.values()))
    picture = HEAD.format(width=width, height=top + plot_h + 50, title=escape(title))
    for mark in marks:
        x = left + mark / marks[-1] * plot_w
        picture += f'<path d="M{x:.1f} {top}v{plot_h}" stroke="#e5e8ec"/>\n'
        picture += text(x, top + plot_h + 16, f'{mark:.3g}', 'middle')
    picture += text(left + plot_w / 2, top + plot_h + 38, axis, 'middle')
    one = left + plot_w / marks[-1]
    picture += f'<path d="M{one:.1f} {top}v{plot_h}" stroke="black" stroke-dasharray="4 3"/>\n'
    for i, (system, value) in enumerate(sorted(values.items(), key=lambda item: -item[1])):
        y = top + i * step + 3
        length = max(1, value / marks[-1] * plot_w)
        color = OWN if system == 'bgloop' else LIMIT if system.startswith('bare') else OTHER
        picture += text(left - 8, y + 15, NAMES.get(system, system), 'end')
        picture += f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{step - 6}" fill="{color}"/>\n'
        picture += text(left + length + 6, y + 15, f'{value:.3g}')
    return picture + '</svg>\n'


def short(number):
    for size, letter in ((1_000_000, 'M'), (1_000, 'k')):
        if number >= size:
            return f'{number // size}{letter}'
    return str(number)


def ticks(least, most):
    return [10 ** power for power in range(math.floor(math.log10(least)),
                                           math.ceil(math.log10(most)) + 1)]


def lines(title, unit, series):
    """title: "what, by what"; series: {system: {x: y}}"""
    left, top, width, height, plot_w, plot_h = 70, 50, 720, 400, 520, 290
    xs = [float(x) for points in series.values() for x in points]
    ys = [y for points in series.values() for y in points.values() if y > 0]
    rows = ticks(min(ys), max(ys))
    low, high = math.log10(rows[0]), math.log10(rows[-1])
    first, last = math.log10(min(xs)), math.log10(max(xs))

    def place(x, y):
        return (left + (math.log10(float(x)) - first) / (last - first) * plot_w,
                top + plot_h - (math.log10(y) - low) / (high - low) * plot_h)

    picture = HEAD.format(width=width, height=height, title=escape(title))
    picture += f'<g transform="translate(18 {top + plot_h / 2}) rotate(-90)">{text(0, 0, unit, "middle")}</g>\n'
    for row in rows:
        y = place(min(xs), row)[1]
        picture += f'<path d="M{left} {y:.1f}h{plot_w}" stroke="#e5e8ec"/>\n'
        picture += text(left - 8, y + 4, short(round(row)) if row >= 1 else str(row), 'end')
    for x in sorted(set(xs)):
        picture += text(place(x, rows[0])[0], top + plot_h + 20, short(int(x)), 'middle')
    along = title.partition(', by ')[2] + '; both axes are logarithmic'
    picture += text(left + plot_w / 2, top + plot_h + 42, along, 'middle')
    ends = []
    for system, points in series.items():
        color = COLORS.get(system, OTHER)
        spots = [place(x, y) for x, y in points.items() if y > 0]
        path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in spots)
        picture += (f'<polyline points="{path}" fill="none" stroke="{color}" '
                    f'stroke-width="{3 if system == "bgloop" else 1.5}"/>\n')
        ends.append((spots[-1][1], system, color))
    y = 0
    for wanted, system, color in sorted(ends):
        y = max(wanted, y + 15)
        picture += text(left + plot_w + 10, y + 4, NAMES.get(system, system), color=color)
    return picture + '</svg>\n'
