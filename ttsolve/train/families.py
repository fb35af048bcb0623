"""The published families of reward models that `ttsolve models export-prm` knows.

    family         published as                                     its own code
    math-shepherd  peiyi9979/math-shepherd-mistral-7b-prm           the model card
    er-prm         HanningZhang/Llama3.1-Math-PRM                   hanningzhang/ER-PRM evaluation
    openr          openreasoner/Math-psa, its LoRA merged           openreasoner/openr prm
    pqm            Windy0822/PQM                                    WindyLee0822/Process_Q_Model
    skywork        Skywork/Skywork-o1-Open-PRM-Qwen-2.5-{1.5B,7B}   skywork-o1-prm-inference
    trl            any AutoModelForTokenClassification of TRL       trl PRMTrainer.tokenize_row
    pure           jinachris/PURE-PRM-7B                            CJReinforce/PURE eval
    rlhflow        RLHFlow/Llama3.1-8B-PRM-{Deepseek,Mistral}-Data  RLHF-Reward-Modeling math-rm
    rlhflow-orm    RLHFlow/Llama3.1-8B-ORM-{Deepseek,Mistral}-Data  RLHF-Reward-Modeling math-rm
    qwen           Qwen/Qwen2.5-Math-{PRM-7B,PRM-72B,7B-PRM800K}    the model cards
    qwen-orm       Qwen/Qwen2.5-Math-RM-72B                         the model card
    orm            any chat AutoModelForSequenceClassification      the model cards

Where the score is, and of what: `layouts.py` has the text, `Family` the rest. To add a family, add
its two functions there and its entry here; the tests of tests/test_export_prm.py then run on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ttsolve.engines.prm_format import Link
from ttsolve.errors import UsageError
from ttsolve.toml import use
from ttsolve.train import layouts
from ttsolve.train.layouts import Layout, Reading
from ttsolve.vote import Aggregation


@dataclass(frozen=True, slots=True)
class Family:
    """One family."""

    name: str
    known_by: str  # a pattern of model names, in lower case, and of architectures
    head: Literal["tokens", "value", "labels"]  # plus and minus of the vocabulary; v_head; score
    layout: Callable[[Any, str], Layout]
    published: Callable[[Any, str, str, Sequence[str]], Reading]
    mark: str = ""  # ends a step
    signs: tuple[str, str] = ("", "")  # their last tokens are plus and minus
    link: Link = "softmax"
    aggregation: Aggregation = "last"
    separator: str = "\n\n"  # of a generator that fits
    context: int = 2**31  # tokens, where training had fewer than the model's config says


_FAMILIES = (
    Family(
        "math-shepherd",
        "math-shepherd-mistral",
        "tokens",
        layouts.shepherd_layout,
        layouts.shepherd_reading,
        mark="ки",
        signs=("+", "-"),
        aggregation="min",
        separator="\n",
    ),
    Family(
        "er-prm",
        r"\ber-prm|llama3.1-math-prm",
        "tokens",
        layouts.erprm_layout,
        layouts.erprm_reading,
        mark="ки",
        signs=(" +", " -"),
        aggregation="min",
        separator="\n",
    ),
    Family(
        "openr",
        "math-psa",
        "tokens",
        layouts.openr_layout,
        layouts.openr_reading,
        mark="\n\n\n\n\n",
        signs=(" +", " -"),
        aggregation="min",
    ),
    Family(
        "pqm",
        r"\bpqm\b",
        "value",
        layouts.pqm_layout,
        layouts.pqm_reading,
        mark="[PRM]",
        link="identity",
        aggregation="min",
        separator="\n",
    ),
    Family(
        "skywork",
        "skywork-o1-open-prm|^Qwen2ForPrmModel$",
        "value",
        layouts.skywork_layout,
        layouts.skywork_reading,
        mark="\n",
        link="sigmoid",
        separator="\n",
    ),
    Family(
        "pure",
        "pure-prm",
        "labels",
        layouts.pure_layout,
        layouts.pure_reading,
        mark="\n",
        link="difference",
        aggregation="min",
    ),
    Family(
        "trl",
        "^\\w+ForTokenClassification$",
        "labels",
        layouts.trl_layout,
        layouts.trl_reading,
        mark="\n\n",
    ),
    Family(
        "rlhflow-orm",
        "llama3.1-8b-orm",
        "tokens",
        layouts.rlhflow_orm_layout,
        layouts.rlhflow_orm_reading,
        mark="+",
        signs=("+", "-"),
    ),
    Family(
        "rlhflow",
        "llama3.1-8b-prm",
        "tokens",
        layouts.rlhflow_layout,
        layouts.rlhflow_reading,
        mark="+",
        signs=("+", "-"),
        context=8192,
    ),
    Family(
        "qwen",
        "^Qwen2ForProcessRewardModel$",
        "labels",
        layouts.qwen_layout,
        layouts.qwen_reading,
        mark="<extra_0>",
        aggregation="prod",
        context=4096,
    ),
    Family(
        "qwen-orm",
        "^Qwen2ForRewardModel$",
        "labels",
        layouts.qwen_orm_layout,
        layouts.qwen_orm_reading,
        link="identity",
    ),
    Family(
        "orm",
        "^\\w+ForSequenceClassification$",
        "labels",
        layouts.orm_layout,
        layouts.orm_reading,
        link="identity",
    ),
)
FAMILIES = {family.name: family for family in _FAMILIES}


def family_of(source: str, architectures: Sequence[str], named: str | None = None) -> Family:
    """The family the user named, or the one that the model's name or architecture shows.

    Raises:
        UsageError: there is none of that name, or nothing shows which it is.
    """
    if named is not None:
        if named in FAMILIES:
            return FAMILIES[named]
        known = use(named, list(FAMILIES)).removesuffix(", or ")
        raise UsageError(f"There is no family {named!r} of reward models: {known}.")
    for family in _FAMILIES:
        if any(re.search(family.known_by, name) for name in (source.lower(), *architectures)):
            return family
    raise UsageError(
        f"Neither the name nor the architecture of {source} shows of which family it is: add "
        f"--family with one of {', '.join(FAMILIES)}."
    )
