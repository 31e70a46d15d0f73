"""vitlab: the Vision Transformer made practical. Names are loaded on first use; importing vitlab imports no torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitlab.cost.flops import cost as cost
    from vitlab.data.catalog import Catalogued as Catalogued
    from vitlab.data.digits import Digits as Digits
    from vitlab.data.folder import Folder as Folder
    from vitlab.data.fractals import Fractals as Fractals
    from vitlab.data.hub import Hub as Hub
    from vitlab.data.shards import Shards as Shards
    from vitlab.data.table import Table as Table
    from vitlab.data.webdataset import WebDataset as WebDataset
    from vitlab.errors import VitlabError as VitlabError
    from vitlab.evals.classify import Accuracy as Accuracy
    from vitlab.evals.classify import classify as classify
    from vitlab.evals.fewshot import fewshot as fewshot
    from vitlab.evals.paired import compare as compare
    from vitlab.inspection import figures as figures
    from vitlab.models.catalog import build_named
    from vitlab.serve.app import create_app as create_app
    from vitlab.serve.export import export as export
    from vitlab.serve.predict import Predictor as Predictor
    from vitlab.serve.settings import ServeSettings as ServeSettings
    from vitlab.studies.finetune import finetune as finetune
    from vitlab.studies.finetune import resume as resume
    from vitlab.weights.convert import convert as convert
    from vitlab.weights.load import load as load
    from vitlab.weights.load import load_with_report as load_with_report
    from vitlab.weights.save import save as save

    build = build_named

_PLACES = {
    "Accuracy": "vitlab.evals.classify:Accuracy",
    "Catalogued": "vitlab.data.catalog:Catalogued",
    "Digits": "vitlab.data.digits:Digits",
    "Folder": "vitlab.data.folder:Folder",
    "Fractals": "vitlab.data.fractals:Fractals",
    "Hub": "vitlab.data.hub:Hub",
    "Predictor": "vitlab.serve.predict:Predictor",
    "ServeSettings": "vitlab.serve.settings:ServeSettings",
    "Shards": "vitlab.data.shards:Shards",
    "Table": "vitlab.data.table:Table",
    "VitlabError": "vitlab.errors:VitlabError",
    "WebDataset": "vitlab.data.webdataset:WebDataset",
    "build": "vitlab.models.catalog:build_named",
    "classify": "vitlab.evals.classify:classify",
    "compare": "vitlab.evals.paired:compare",
    "convert": "vitlab.weights.convert:convert",
    "cost": "vitlab.cost:",
    "create_app": "vitlab.serve.app:create_app",
    "export": "vitlab.serve.export:export",
    "fewshot": "vitlab.evals.fewshot:fewshot",
    "figures": "vitlab.inspection.figures:",
    "finetune": "vitlab.studies.finetune:finetune",
    "load": "vitlab.weights.load:load",
    "load_with_report": "vitlab.weights.load:load_with_report",
    "resume": "vitlab.studies.finetune:resume",
    "save": "vitlab.weights.save:save",
}

__all__ = [
    "Accuracy",
    "Catalogued",
    "Digits",
    "Folder",
    "Fractals",
    "Hub",
    "Predictor",
    "ServeSettings",
    "Shards",
    "Table",
    "VitlabError",
    "WebDataset",
    "build",
    "classify",
    "compare",
    "convert",
    "cost",
    "create_app",
    "export",
    "fewshot",
    "figures",
    "finetune",
    "load",
    "load_with_report",
    "resume",
    "save",
]


def __getattr__(name: str) -> Any:
    try:
        module, _, attribute = _PLACES[name].partition(":")
    except KeyError:
        raise AttributeError(f"module 'vitlab' has no attribute '{name}'") from None
    loaded = importlib.import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_PLACES)
