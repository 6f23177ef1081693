"""``imagegen miniature``: the small models that are trained here, and what they are worth."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from imagegen import contract
from imagegen.cli.values import Commands, finite, positive
from imagegen.errors import StartupError

if TYPE_CHECKING:
    from imagegen.miniature.evaluation.generating import Model, Setting
    from imagegen.miniature.training.distillation import Distillation
    from imagegen.miniature.training.recipes import Recipe

    Declared = TypeVar("Declared", Recipe, Distillation)

__all__ = ["add", "run"]

_LAYOUTS = ("left", "upper", "shapes", "centre", "lines", "logo")
_FONTS = ("bold", "light", "small")
_VARIED = ("steps", "guidance", "scheduler", "precision", "batch")
_QUALITY = ("cv2", "matplotlib", "onnxruntime", "rapidocr")
_PRECISIONS = ("Float32", "BFloat16", "Float16")


def _some_of(allowed: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Make a type of option: some names, apart by commas."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip() != "none")
        unknown = sorted(set(names) - set(allowed))
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{unknown[0]!r} is not one of {', '.join(allowed)}, none"
            )
        return names

    return read


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def _add_cases(parser: argparse.ArgumentParser, *, count: int) -> None:
    parser.add_argument("--split", choices=("heldout", "train"), default="heldout")
    parser.add_argument("--seed", type=_seed, default=0, help="of the choice of prompts")
    parser.add_argument("--count", type=positive, default=count, help="how many prompts")
    parser.add_argument(
        "--layouts",
        type=_some_of(_LAYOUTS),
        metavar="NAME,...",
        help=f"some of {', '.join(_LAYOUTS)}; default: the first three",
    )
    parser.add_argument(
        "--fonts",
        type=_some_of(_FONTS),
        default=_FONTS[:1],
        metavar="NAME,...",
        help=f"some of {', '.join(_FONTS)}; default: the first, which the models are trained on",
    )


def _add_setting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=positive, help="default: what suits the kind of model")
    parser.add_argument("--guidance-scale", type=finite, metavar="X", help="same")
    parser.add_argument("--scheduler", metavar="NAME", help="default: the model's own")
    parser.add_argument("--precision", choices=_PRECISIONS, default="Float32")
    parser.add_argument("--batch-size", type=positive, default=1)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="what to train, such as miniature")
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        metavar="DIR",
        help="for checkpoints; one that an interrupted training left is gone on with",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="of the model")
    parser.add_argument("--seed", type=_seed, help="default, as of all else: the recipe's")
    parser.add_argument("--pictures", type=positive, metavar="N", help="to train on")
    parser.add_argument("--steps", type=positive, metavar="N", help="of the denoiser")


def add(commands: Commands) -> None:
    """Add the command with its own commands."""
    parser = commands.add_parser("miniature", help="make and measure the small trained models")
    actions = parser.add_subparsers(dest="action", required=True)

    train = actions.add_parser("train", help="train a model from nothing")
    _add_training(train)
    train.add_argument("--vae-steps", type=positive, metavar="N", help="of the autoencoder")
    train.add_argument("--text-steps", type=positive, metavar="N", help="of spelling alone")
    train.add_argument(
        "--start", type=Path, metavar="DIR", help="trained model to begin with; default: nothing"
    )

    distil = actions.add_parser("distil", help="make a model of few steps from a trained one")
    distil.add_argument(
        "--teacher", type=Path, required=True, metavar="DIR", help="trained by the same recipe"
    )
    _add_training(distil)
    distil.add_argument("--guidance-scale", dest="guidance", type=finite, metavar="X")

    prompts = actions.add_parser("prompts", help="print prompts and what must be seen, as JSON")
    _add_cases(prompts, count=20)

    sheet = actions.add_parser("sheet", help="make a contact sheet as PNG")
    sheet.add_argument("--model", type=Path, metavar="DIR", help="without it, drawn controls")
    sheet.add_argument("--out", type=Path, required=True, metavar="FILE")
    sheet.add_argument("--columns", type=positive, default=4)
    _add_cases(sheet, count=24)
    _add_setting(sheet)

    evaluate = actions.add_parser("evaluate", help="measure a model at many settings")
    evaluate.add_argument("--model", type=Path, required=True, metavar="DIR")
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR")
    evaluate.add_argument(
        "--vary",
        type=_some_of(_VARIED),
        default=_VARIED,
        metavar="NAME,...",
        help=f"some of {', '.join(_VARIED)}, or none; default: all",
    )
    evaluate.add_argument(
        "--few", type=positive, default=24, metavar="N", help="prompts of each varied setting"
    )
    _add_cases(evaluate, count=200)
    _add_setting(evaluate)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; give the exit code."""
    actions = {
        "train": _train,
        "distil": _distil,
        "prompts": _prompts,
        "sheet": _sheet,
        "evaluate": _evaluate,
    }
    try:
        return actions[arguments.action](arguments)
    except StartupError as error:
        print(f"imagegen miniature: {error}", file=sys.stderr)
        return contract.ExitCode.STARTUP_FAILED
    except ModuleNotFoundError as error:
        if error.name not in _QUALITY:
            raise
        print(
            f"imagegen miniature: {error.name} is not installed; the extra 'quality' brings it: "
            "pip install 'modelrollout[inference,quality]'",
            file=sys.stderr,
        )
        return contract.ExitCode.STARTUP_FAILED


def _train(arguments: argparse.Namespace) -> int:
    from imagegen.engines.folder import check_folder  # noqa: PLC0415
    from imagegen.miniature.training.runs import train  # noqa: PLC0415

    recipe = _recipe(arguments)
    if recipe is None:
        return contract.ExitCode.USAGE
    if arguments.start is not None:
        check_folder(arguments.start)
    settings = _adapted(recipe, arguments)
    train(settings, work=arguments.work, out=arguments.out, start=arguments.start)
    print(f"{arguments.out}: {arguments.recipe}")
    return 0


def _distil(arguments: argparse.Namespace) -> int:
    from imagegen.engines.folder import check_folder  # noqa: PLC0415
    from imagegen.miniature.training.distillation import Distillation, distil  # noqa: PLC0415

    recipe = _recipe(arguments)
    if recipe is None:
        return contract.ExitCode.USAGE
    check_folder(arguments.teacher)
    if arguments.pictures is not None:
        recipe = replace(recipe, pictures=arguments.pictures)
    settings = _adapted(Distillation(), arguments)
    distil(arguments.teacher, settings, recipe, work=arguments.work, out=arguments.out)
    print(f"{arguments.out}: distilled from {arguments.teacher}")
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe | None:
    from imagegen.miniature.training.recipes import RECIPES  # noqa: PLC0415

    recipe = RECIPES.get(arguments.recipe)
    if recipe is None:
        known = ", ".join(sorted(RECIPES))
        print(
            f"imagegen miniature: no recipe {arguments.recipe!r}; there are: {known}",
            file=sys.stderr,
        )
    return recipe


def _adapted(declared: Declared, arguments: argparse.Namespace) -> Declared:
    """Give what was declared with what the options say instead."""
    names = {field.name for field in fields(declared)}
    said = {
        name: value
        for name, value in vars(arguments).items()
        if name in names and value is not None
    }
    return replace(declared, **said)


def _cases(arguments: argparse.Namespace) -> list[Any]:
    from imagegen.miniature.evaluation.cases import make_cases  # noqa: PLC0415

    return make_cases(
        arguments.split,
        seed=arguments.seed,
        count=arguments.count,
        layouts=arguments.layouts,
        fonts=arguments.fonts,
    )


def _prompts(arguments: argparse.Namespace) -> int:
    from imagegen.miniature.evaluation.cases import as_record  # noqa: PLC0415

    for case in _cases(arguments):
        print(json.dumps(as_record(case)))
    return 0


def _load(arguments: argparse.Namespace) -> tuple[Model, Setting]:
    """Load the model and give the setting that the options ask for."""
    from imagegen.miniature.evaluation.generating import Model  # noqa: PLC0415

    model = Model(arguments.model)
    wanted = {
        "steps": arguments.steps,
        "guidance_scale": arguments.guidance_scale,
        "scheduler": arguments.scheduler,
        "precision": arguments.precision,
        "batch_size": arguments.batch_size,
    }
    setting = replace(
        model.default, **{name: value for name, value in wanted.items() if value is not None}
    )
    model.check(setting)
    return model, setting


def _sheet(arguments: argparse.Namespace) -> int:
    from imagegen.miniature.evaluation.evaluating import drawn  # noqa: PLC0415
    from imagegen.miniature.evaluation.sheets import contact_sheet  # noqa: PLC0415

    cases = _cases(arguments)
    if arguments.model is None:
        pictures = drawn(cases)
    else:
        model, setting = _load(arguments)
        pictures = model.make(cases, setting).pictures
    captions = [case.prompt for case in cases]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures, captions, columns=arguments.columns).save(arguments.out)
    print(f"{arguments.out}: {len(pictures)} pictures")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from imagegen.miniature.evaluation.evaluating import (  # noqa: PLC0415
        DRAWN,
        Plan,
        control_results,
        evaluate,
    )
    from imagegen.miniature.evaluation.grid import trials  # noqa: PLC0415
    from imagegen.miniature.evaluation.plots import draw_plots  # noqa: PLC0415
    from imagegen.miniature.evaluation.reading import Reader  # noqa: PLC0415
    from imagegen.miniature.evaluation.report import all_results, markdown  # noqa: PLC0415

    model, setting = _load(arguments)
    reader = Reader()
    plan = Plan(_cases(arguments), few=arguments.few, seed=arguments.seed)
    control_results(arguments.out, plan, reader)
    evaluate(
        model,
        trials=trials(setting, varied=arguments.vary, schedulers=model.schedulers),
        plan=plan,
        folder=arguments.out,
        reader=reader,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    results = all_results(arguments.out)
    (arguments.out / "README.md").write_text(markdown(results), encoding="utf-8")
    draw_plots(results, arguments.out)
    print(markdown({name: results[name] for name in (DRAWN, model.name)}))
    print(f"{arguments.out}: tables and plots of {', '.join(results)}")
    return 0
