#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the benchmarks: every workload by each system in turn, round after round.

Times hold for one machine and one moment. What is compared is the ratio to plain GLib, each taken
within one round; the median of the rounds is the figure.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import charts
from plan import BASE, BOUNDS, CHARTS_OF, CURVES, GOALS, ONLY, SHORT, SYSTEMS, TITLES, WORKLOADS

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RECORDED = HERE / 'recorded.json'
PAGE = ROOT / 'docs' / 'performance.md'
CHARTS = ROOT / 'docs' / 'performance'

# What has to be left of the recorded ratio; on another processor or kernel a wake-up costs something
# else, and with it nearly everything. There it is also looked at what other programs come to.
KEPT, KEPT_ELSEWHERE = 0.8, 0.4

# The machine may be busy with something else: what fell is measured again, with so many times the
# rounds.
CHANCES = (2, 4, 6)

# A system that takes so many seconds is not asked again.
PATIENCE = 12

TIMEOUT = 120

# The exit status that tells Meson so.
SKIPPED = 77

# "No worse than": what two runs of the same thing differ by.
EVEN = 0.95


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def command_of(build, system):
    words = SYSTEMS[system]
    program = HERE / words[0] if words[0].endswith('.py') else build / words[0]
    if not program.exists():
        return None
    interpreter = ['/usr/bin/python3'] if words[0].endswith('.py') else []
    return interpreter + [str(program)] + words[1:]


PREFIX = []


def run_once(command, arguments):
    """One process: a dictionary of figures, or None where the system has nothing of the kind."""
    # What runs beside busy processes has to be one of them.
    prefix = [] if '--busy' in arguments or '--cpus' in arguments else PREFIX
    try:
        done = subprocess.run(prefix + command + arguments, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=TIMEOUT, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        # A peer may fail, and is left out then.
        if any(command[0].endswith(name) for name in ('bench-bgloop', 'bench-glib')):
            raise SystemExit(f'{error}\n{error.stderr}') from error
        say(f'left out: {error} {error.stderr}')
        return None
    figures = json.loads(done.stdout)
    return None if 'skipped' in figures else figures


def measure(build, workload, systems, rounds, arguments):
    """{system: [figures of each round]}, round by round and in each round system by system."""
    runs = {}
    commands = {system: command_of(build, system) for system in systems
                if workload in ONLY.get(system, [workload])}
    commands = {system: command for system, command in commands.items() if command}
    for _ in range(rounds):
        for system, command in list(commands.items()):
            # An interpreter needs so long for each that fewer do.
            slow = system.startswith('asyncio') and workload.startswith('W1-')
            extra = ['--count', '50000'] if slow else []
            started = time.monotonic()
            figures = run_once(command, arguments + extra)
            if figures is not None:
                runs.setdefault(system, []).append(figures)
            if figures is None or time.monotonic() - started > PATIENCE:
                del commands[system]
    return runs


def is_figure(name, value):
    return isinstance(value, (int, float)) and name not in ('n', 'seconds')


def medians(runs):
    return {system: {name: statistics.median(figures[name] for figures in rounds)
                     for name, value in rounds[0].items() if is_figure(name, value)}
            for system, rounds in runs.items()}


def ratios(runs):
    """How many times better than plain GLib, pair by pair."""
    if BASE not in runs:
        return {}
    table = {}
    for system, rounds in runs.items():
        table[system] = {}
        for name, value in rounds[0].items():
            if not is_figure(name, value):
                continue
            pairs = [base[name] / own[name] for base, own in zip(runs[BASE], rounds) if own[name]]
            if pairs:
                table[system][name] = statistics.median(pairs)
    return table


def machine():
    model = platform.processor()
    try:
        for line in open('/proc/cpuinfo', encoding='utf-8'):
            if line.startswith('model name'):
                model = line.split(':', 1)[1].strip()
                break
    except OSError:
        pass
    versions = {}
    for name in ('glib-2.0', 'libuv', 'Qt6Core', 'libpulse', 'libpipewire-0.3'):
        asked = subprocess.run(['pkg-config', '--modversion', name], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, check=False)
        if asked.returncode == 0:
            versions[name] = asked.stdout.strip()
    commit = subprocess.run(['git', '-C', str(ROOT), 'rev-parse', '--short', 'HEAD'],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                            check=False)
    return {'processor': model, 'processors': os.cpu_count(), 'kernel': platform.release(),
            'python': platform.python_version(), 'versions': versions,
            'commit': commit.stdout.strip(), 'date': time.strftime('%Y-%m-%d'),
            'prefix': ' '.join(PREFIX)}


def judge(goal, results):
    """(what it came to, what was wanted, met?), or None if it was not measured."""
    kind, workload, name, wanted = goal
    entry = results.get(workload)
    if not entry or 'bgloop' not in entry['medians']:
        return None
    own = entry['medians']['bgloop'].get(name)
    if own is None:
        return None
    if kind in ('times', 'even'):
        ratio = entry['ratios'].get('bgloop', {}).get(name)
        if ratio is None:
            return None
        if kind == 'even':
            return f'{ratio:.2f}×', 'no worse than GLib', ratio >= EVEN
        return f'{ratio:.1f}×' if wanted > 2 else f'{ratio:.2f}×', f'≥ {wanted:g}×', ratio >= wanted
    if kind == 'most':
        unit, scale = (' µs', 1000) if name.endswith('_ns') else ('', 1)
        return f'{own / scale:.3g}{unit}', f'≤ {wanted / scale:g}{unit}', own <= wanted
    peer = entry['medians'].get(kind, {}).get(name)
    if not peer:
        return None
    return f'{own / peer:.2f} × {kind}', f'≤ {wanted:g} × {kind}', own <= wanted * peer


METRICS = {'ns': 'time', 'cpu_ns': 'processor time', 'p50_ns': 'median', 'p99_ns': '99th percentile',
           'bytes': 'memory', 'wakeups': 'wake-ups', 'early': 'too early',
           'post_p99_ns': 'post, 99th percentile', 'timer_p99_ns': 'timer, 99th percentile',
           'socket_p99_ns': 'socket, 99th percentile', 'idle_cpu_ns': 'processor time'}


def goal_rows(results):
    rows = []
    for goal in GOALS:
        verdict = judge(goal, results)
        if verdict:
            came, wanted, met = verdict
            rows.append((TITLES[goal[1]], METRICS[goal[2]], came, wanted, 'yes' if met else 'NO'))
    return rows


def system_rows(results):
    """For each workload, how each system does in times of plain GLib."""
    systems = [system for system in SYSTEMS if any(system in entry['ratios']
                                                   for entry in results.values())]
    rows = [['workload'] + systems]
    for workload, entry in results.items():
        name = {'W5': 'bytes', 'W7': 'post_p99_ns', 'W8': 'bytes', 'W1s': 'p50_ns',
                'W2s': 'p50_ns'}.get(workload, 'ns')
        row = [TITLES[workload]]
        for system in systems:
            ratio = entry['ratios'].get(system, {}).get(name)
            row.append('–' if ratio is None else f'{ratio:.1f}' if ratio >= 10 else f'{ratio:.2f}')
        rows.append(row)
    return rows


def print_rows(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def markdown(rows):
    lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
    lines.insert(1, '|' + '---|' * len(rows[0]))
    return '\n'.join(lines)


GOAL_HEAD = ('workload', 'figure', 'bgloop', 'goal', 'met')


def print_results(results):
    if goal_rows(results):
        print_rows([GOAL_HEAD] + goal_rows(results))
        print()
    if results:
        print('Times plain GLib (more is better):')
        print_rows(system_rows(results))


def scale(results, recorded, workload, name):
    """By how much less than the machine of the record this one allows."""
    if workload not in BOUNDS:
        return 1
    system, bounding = BOUNDS[workload]
    now = results[bounding]['ratios'].get(system, {}).get(name)
    then = recorded['workloads'].get(bounding, {}).get('ratios', {}).get(system, {}).get(name)
    return min(1, now / then) if now and then else 1


def check(results, recorded, same):
    """The workloads whose ratio fell below what was recorded."""
    fallen = {}
    for workload, name in SHORT:
        now = results[workload]['ratios'].get('bgloop', {}).get(name)
        then = recorded['workloads'].get(workload, {}).get('ratios', {}).get('bgloop', {}).get(name)
        if now is None or then is None:
            continue
        least = KEPT * then if same else KEPT_ELSEWHERE * then * scale(results, recorded, workload, name)
        if now < least:
            fallen[workload] = (f'{TITLES[workload]}: {METRICS[name]} {now:.2f}×, at least {least:.2f}× '
                                f'expected, recorded {then:.2f}×')
    return fallen


def measure_short(build, workloads, rounds, results):
    for workload in workloads:
        bound, bounding = BOUNDS.get(workload, (None, None))
        systems = [BASE, 'bgloop'] + ([bound] if bounding == workload else [])
        runs = measure(build, workload, systems, rounds, WORKLOADS[workload])
        results[workload] = {'medians': medians(runs), 'ratios': ratios(runs)}


def run_short(build, rounds):
    recorded = json.loads(RECORDED.read_text(encoding='utf-8'))
    here, there = machine(), recorded['machine']
    same = all(here[name] == there[name] for name in ('processor', 'processors', 'kernel'))
    if here['processors'] != there['processors']:
        print('recorded with another number of processors: nothing to compare with')
        return SKIPPED

    results = {}
    measure_short(build, dict.fromkeys(workload for workload, _ in SHORT), rounds, results)
    for chance in CHANCES:
        fallen = check(results, recorded, same)
        if fallen:
            say('again:', '; '.join(fallen.values()))
            measure_short(build, fallen, chance * rounds, results)

    print_results(results)
    fallen = check(results, recorded, same)
    print(f'{len(fallen)} of {len(results)} workloads are below '
          + (f'{KEPT:.0%} of what was recorded' if same else
             f'{KEPT_ELSEWHERE:.0%} of what was recorded on another machine, for what this one allows'))
    for line in fallen.values():
        print(line)
    return 1 if fallen else 0


def run_curves(build, rounds, systems):
    curves = {}
    for curve, (_, arguments, points, members) in CURVES.items():
        curves[curve] = {}
        for point in points:
            own = [argument.format(point=point, share=max(1, 1000000 // point))
                   for argument in arguments]
            chosen = [system for system in members if system in systems]
            say(f'{curve} {point}')
            runs = measure(build, curve, chosen, rounds, own)
            for system, figures in medians(runs).items():
                curves[curve].setdefault(system, {})[str(point)] = figures['ns']
    return curves


def draw(recorded):
    CHARTS.mkdir(exist_ok=True)
    for workload, title in CHARTS_OF.items():
        entry = recorded['workloads'].get(workload)
        if entry:
            values = {system: entry['ratios'][system]['ns']
                      for system in SYSTEMS if 'ns' in entry['ratios'].get(system, {})}
            picture = charts.bars(title, 'times plain GLib’s rate (longer is faster)', values)
            (CHARTS / f'{workload.lower()}.svg').write_text(picture, encoding='utf-8')
    for curve, lines in recorded.get('curves', {}).items():
        title = CURVES[curve][0]
        picture = charts.lines(title, 'ns per post', lines)
        (CHARTS / f'{curve}.svg').write_text(picture, encoding='utf-8')


def put_between(text, name, content):
    begin, end = f'<!-- generated by run.py: {name} -->', f'<!-- end of {name} -->'
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f'{before}{begin}\n\n{content}\n\n{end}{after}'


def describe_machine(recorded):
    about = recorded['machine']
    versions = ', '.join(f'{name} {version}' for name, version in about['versions'].items())
    return (f'{about["processors"]} × {about["processor"]}, Linux {about["kernel"]}; {versions}, '
            f'Python {about["python"]}; bgloop at {about["commit"]}, {about["date"]}; '
            f'{recorded["rounds"]} rounds'
            + (f', each program run by `{about["prefix"]}` (but not on one processor or beside busy '
               f'processes), since the machine was shared.' if about.get('prefix') else '.'))


def write_page(recorded):
    results = recorded['workloads']
    text = PAGE.read_text(encoding='utf-8')
    text = put_between(text, 'machine', describe_machine(recorded))
    text = put_between(text, 'goals', markdown([GOAL_HEAD] + goal_rows(results)))
    text = put_between(text, 'systems', markdown(system_rows(results)))
    PAGE.write_text(text, encoding='utf-8')
    draw(recorded)


def rounded(value):
    """Four digits: no figure has more."""
    if isinstance(value, float):
        return float(f'{value:.4g}')
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return value


def record(report):
    """Keeps what was recorded before and not measured now."""
    old = json.loads(RECORDED.read_text(encoding='utf-8')) if RECORDED.exists() else {}
    before = old.get('workloads', {})
    merged = {workload: {kind: before.get(workload, {}).get(kind, {}) | values
                         for kind, values in entry.items()}
              for workload, entry in report['workloads'].items()}
    workloads = before | merged
    kept = report | {
        'workloads': {name: workloads[name] for name in WORKLOADS if name in workloads},
        'curves': report.get('curves') or old.get('curves', {}),
    }
    RECORDED.write_text(json.dumps(rounded(kept), indent=1) + '\n', encoding='utf-8')


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--build', default=str(ROOT / 'build'), help='the build directory')
    parser.add_argument('--rounds', type=int, help='how often each is run (7, short: 3)')
    parser.add_argument('--workloads', help='some of ' + ' '.join(WORKLOADS))
    parser.add_argument('--systems', help='some of ' + ' '.join(SYSTEMS))
    parser.add_argument('--prefix', help='a command to run each program with')
    parser.add_argument('--no-curves', action='store_true', help='without the scaling curves')
    parser.add_argument('--short', action='store_true',
                        help='fail if a ratio fell below four fifths of the recorded one')
    parser.add_argument('--record', action='store_true', help='keep the results as recorded.json')
    parser.add_argument('--json', help='write every figure of every round to a file')
    parser.add_argument('--docs', action='store_true',
                        help='write tables and charts from recorded.json; measures nothing')
    return parser.parse_args()


def main():
    args = options()
    if args.docs:
        write_page(json.loads(RECORDED.read_text(encoding='utf-8')))
        return 0

    PREFIX.extend((args.prefix or '').split())
    build = pathlib.Path(args.build) / 'tests' / 'benchmarks'
    if args.short:
        return run_short(build, args.rounds or 3)

    rounds = args.rounds or 7
    systems = args.systems.split(',') if args.systems else list(SYSTEMS)
    workloads = args.workloads.split(',') if args.workloads else list(WORKLOADS)
    results, everything = {}, {}
    report = {'machine': machine(), 'rounds': rounds, 'workloads': results}
    for workload in workloads:
        say(f'{TITLES[workload]} …')
        runs = measure(build, workload, systems, 1 if workload == 'W5' else rounds,
                       WORKLOADS[workload])
        results[workload] = {'medians': medians(runs), 'ratios': ratios(runs)}
        everything[workload] = runs
        if args.record:
            record(report)

    print_results(results)
    if not args.no_curves and not args.workloads:
        report['curves'] = run_curves(build, math.ceil(rounds / 2), systems)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(report | {'runs': everything}, indent=1),
                                           encoding='utf-8')
    if args.record:
        record(report)
    return 0


if __name__ == '__main__':
    sys.exit(main())
