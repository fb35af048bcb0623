"""Small reward models in the file layouts of the published families, and their own scoring code.

The architectures are transformers' own; weights are random. `SCORERS` holds for each family what
its model card or evaluation script does with a whole solution, without anything of ttsolve.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen2Model,
    Qwen2PreTrainedModel,
)

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + WORDS + r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
LLAMA_SPLIT = QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
LLAMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
)
SYSTEM = {
    "role": "system",
    "content": "Please reason step by step, and put your final answer within \\boxed{}.",
}
TEXT = "Janet has 16 ducks, so 16 - 3 = 13 eggs are left. Step 1: the answer is \\boxed{13}. + - ки"
QUESTION = "Janet's ducks lay 16 eggs per day; how many are 50% of them?"

# --- tokenizers ----------------------------------------------------------------------------------


def byte_level(split: str, specials: list[str], nfc: bool = False) -> Tokenizer:
    """A small byte-level BPE that cuts words as a large one does; marks are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(split), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=specials,
        show_progress=False,
    )
    corpus = [f"{TEXT} \n\n\n\n\n a\n\nb.\n\nc ки\n"] * 50
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def qwen_tokenizer(**names: str) -> PreTrainedTokenizerFast:
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>", "[PRM]"]
    tokenizer = byte_level(QWEN_SPLIT, marks, nfc=True)
    names = {"eos_token": "<|im_end|>", "chat_template": CHATML, **names}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def llama_tokenizer(**names: str) -> PreTrainedTokenizerFast:
    begin, *others = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = byte_level(LLAMA_SPLIT, [begin, *others])
    pair = [(begin, tokenizer.token_to_id(begin))]
    tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=pair)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token="<|eot_id|>",
        chat_template=LLAMA_CHAT,
        **names,
    )


def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece's BPE as transformers writes it: no words, spaces as ▁, bytes for the rest."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False)
    learnt.train_from_iterator([TEXT] * 50, trainer)
    state = json.loads(learnt.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *state["vocab"]]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(merge) for merge in state["merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


# --- models --------------------------------------------------------------------------------------


class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):
    """As in the repositories of Qwen2.5-Math-PRM (modeling_qwen2_rm.py)."""

    outputs = 2

    def __init__(self, config):
        super().__init__(config)
        self.model = Qwen2Model(config)
        width = config.hidden_size
        self.score = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, self.outputs)
        )
        self.post_init()

    def forward(self, input_ids):
        return self.score(self.model(input_ids).last_hidden_state)


class Qwen2ForRewardModel(Qwen2ForProcessRewardModel):
    """As in the repository of Qwen2.5-Math-RM-72B."""

    outputs = 1


class ValueHead(nn.Module):
    """TRL's AutoModelForCausalLMWithValueHead, as Skywork and PQM have it."""

    def __init__(self, pretrained_model):
        super().__init__()
        self.pretrained_model = pretrained_model
        self.dropout = nn.Dropout(0.1)
        self.summary = nn.Linear(pretrained_model.config.hidden_size, 1)

    def forward(self, input_ids):
        out = self.pretrained_model(input_ids, output_hidden_states=True)
        return self.summary(self.dropout(out.hidden_states[-1])).squeeze(-1)


SIZES = {
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


def qwen2(tokenizer, **more):
    return Qwen2Config(vocab_size=len(tokenizer) + 8, **SIZES, **more)


def llama(tokenizer, **more):
    return LlamaConfig(
        vocab_size=len(tokenizer) + 8, rope_parameters=LLAMA3_ROPE, head_dim=24, **SIZES, **more
    )


def mistral(tokenizer):
    return MistralConfig(vocab_size=len(tokenizer), sliding_window=1500, **SIZES)


def wild(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with weights so large that every token matters to every later one."""
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            deviation = 0.15 if weight.dim() > 1 else 0.1
            center = 1.0 if "norm" in name else 0.0
            weight.copy_(center + deviation * torch.randn(weight.shape, generator=dice))
    return model.eval()


def value_files(model: nn.Module, folder: Path, prefix: str = "") -> None:
    """A value head beside a causal model: one file, two more keys (PQM's: all with a prefix)."""
    wrapper = wild(ValueHead(model))
    model.save_pretrained(folder)
    state = {prefix + key: value for key, value in load_file(folder / "model.safetensors").items()}
    state |= {f"v_head.{key}": v.detach() for key, v in wrapper.summary.named_parameters("summary")}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin") if prefix else save_file(
        state, folder / "model.safetensors", metadata={"format": "pt"}
    )


def remote_code(folder: Path, **auto_map: str) -> None:
    """The config names code of the repository, as published ones do; to run it is a failure."""
    (folder / "modeling.py").write_text("raise SystemExit('code of the repository was run')\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": auto_map}))


def _causal(make, config, tokenizer):
    def write(folder):
        tok = tokenizer()
        wild(make(config(tok))).save_pretrained(folder, max_shard_size="40KB")
        tok.save_pretrained(folder)

    return write


def _skywork(folder):
    tokenizer = qwen_tokenizer(bos_token="<|endoftext|>")
    value_files(Qwen2ForCausalLM(qwen2(tokenizer, tie_word_embeddings=True)), folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen2ForPrmModel"]
    (folder / "config.json").write_text(json.dumps(config))
    remote_code(folder, AutoModel="modeling.Qwen2ForPrmModel")


def _pqm(folder):
    tokenizer = llama_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[PRM]"]})
    value_files(LlamaForCausalLM(llama(tokenizer)), folder, prefix="pretrained_model.")
    tokenizer.save_pretrained(folder)


def _qwen(make):
    def write(folder):
        tokenizer = qwen_tokenizer()
        wild(make(qwen2(tokenizer))).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        remote_code(folder, AutoModel=f"modeling.{make.__name__}")

    return write


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {  # the name under which it is published
    "math-shepherd": (
        "math-shepherd-mistral-7b-prm",
        _causal(MistralForCausalLM, mistral, mistral_tokenizer),
    ),
    "er-prm": ("Llama3.1-Math-PRM", _causal(LlamaForCausalLM, llama, llama_tokenizer)),
    "openr": ("Math-psa", _causal(Qwen2ForCausalLM, qwen2, qwen_tokenizer)),
    "pqm": ("PQM", _pqm),
    "skywork": ("Skywork-o1-Open-PRM-Qwen-2.5-1.5B", _skywork),
    "pure": ("PURE-PRM-7B", _causal(Qwen2ForTokenClassification, qwen2, qwen_tokenizer)),
    "trl": ("Qwen2.5-Math-PRM-0.2", _causal(Qwen2ForTokenClassification, qwen2, qwen_tokenizer)),
    "rlhflow": (
        "Llama3.1-8B-PRM-Deepseek-Data",
        _causal(LlamaForCausalLM, llama, llama_tokenizer),
    ),
    "rlhflow-orm": (
        "Llama3.1-8B-ORM-Deepseek-Data",
        _causal(LlamaForCausalLM, llama, llama_tokenizer),
    ),
    "qwen": ("Qwen2.5-Math-PRM-7B", _qwen(Qwen2ForProcessRewardModel)),
    "qwen-orm": ("Qwen2.5-Math-RM-72B", _qwen(Qwen2ForRewardModel)),
    "orm": (
        "Skywork-Reward-Llama-3.1-8B",
        _causal(
            LlamaForSequenceClassification,
            lambda tok: llama(tok, num_labels=1, pad_token_id=tok.pad_token_id),
            lambda: llama_tokenizer(pad_token="<|eot_id|>"),
        ),
    ),
}

# --- the families' own code ----------------------------------------------------------------------


@dataclass
class Theirs:
    """A family's own code: (tokens up to the last score, scores) of a question and steps."""

    folder: Path
    family: str

    def __post_init__(self):
        make = {
            "qwen": Qwen2ForProcessRewardModel,
            "qwen-orm": Qwen2ForRewardModel,
            "pure": AutoModelForTokenClassification,
            "trl": AutoModelForTokenClassification,
            "orm": AutoModelForSequenceClassification,
        }.get(self.family, AutoModelForCausalLM)
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        if self.family in ("skywork", "pqm"):
            self.model = self._value_model()
        else:
            self.model = make.from_pretrained(self.folder).eval()

    def _value_model(self):
        path = self.folder / "model.safetensors"
        state = load_file(path) if path.exists() else torch.load(self.folder / "pytorch_model.bin")
        config = {"skywork": Qwen2Config, "pqm": LlamaConfig}[self.family]
        causal = {"skywork": Qwen2ForCausalLM, "pqm": LlamaForCausalLM}[self.family]
        model = ValueHead(causal(config.from_pretrained(self.folder)))
        keys = {key.replace("pretrained_model.", ""): value for key, value in state.items()}
        summary = {k.removeprefix("v_head.summary."): keys.pop(k) for k in [*keys] if "v_head" in k}
        model.summary.load_state_dict(summary)
        missing, unexpected = model.pretrained_model.load_state_dict(keys, strict=False)
        assert not unexpected
        assert set(missing) <= {"lm_head.weight"}
        model.pretrained_model.tie_weights()
        return model.eval()

    @torch.no_grad()
    def __call__(self, question: str, steps: list[str]) -> tuple[list[int], list[float]]:
        ids, scores = SCORERS[self.family](self, question, steps)
        return ids, [float(score) for score in scores]

    def chat(self, *turns: tuple[str, str] | dict[str, str]) -> list[int]:
        messages = [t if isinstance(t, dict) else {"role": t[0], "content": t[1]} for t in turns]
        ids = self.tokenizer.apply_chat_template(messages, tokenize=True)
        return list(ids["input_ids"])


def _renumbered(steps):
    return [f"Step {i + 1}: " + re.sub(r"^Step \d+:\s*", "", s) for i, s in enumerate(steps)]


def score_math_shepherd(self, question, steps):
    """Model card of peiyi9979/math-shepherd-mistral-7b-prm."""
    candidate_tokens = self.tokenizer.encode("+ -")[1:]
    step_tag_id = self.tokenizer.encode("ки")[-1]
    input_for_prm = f"{question} " + " ки\n".join(_renumbered(steps)) + " ки"
    input_id = torch.tensor([self.tokenizer.encode(input_for_prm)])
    logits = self.model(input_id).logits[:, :, candidate_tokens]
    scores = logits.softmax(dim=-1)[:, :, 0]
    return input_id[0].tolist(), scores[input_id == step_tag_id]


def score_er_prm(self, question, steps):
    """hanningzhang/ER-PRM, evaluation/evaluate_math_reward_model.py."""
    step_tag_id = self.tokenizer.encode(" ки")[-1]
    candidate_tokens = [self.tokenizer.encode(" +")[-1], self.tokenizer.encode(" -")[-1]]
    text = f"{question} " + " ки\n".join(_renumbered(steps)) + " ки"
    input_id = torch.tensor([self.tokenizer(text.replace(" ки\n", " ки"))["input_ids"]])
    scores = self.model(input_id).logits[:, :, candidate_tokens].softmax(dim=-1)[:, :, 0]
    return input_id[0].tolist(), scores[input_id == step_tag_id]


def score_openr(self, question, steps):
    """openreasoner/openr, prm/infer_fns.py and its inputs (reason/evaluation/evaluate.py)."""
    candidate_tokens = self.tokenizer.encode(" + -")
    step_tag_id = torch.tensor([self.tokenizer.encode(" \n\n\n\n\n")])
    text = f"{question} " + "".join(f"{step} \n\n\n\n\n " for step in steps).removesuffix(" ")
    input_id = torch.tensor([self.tokenizer.encode(text)])
    scores = self.model(input_id).logits[:, :, candidate_tokens].softmax(dim=-1)[:, :, 0]
    return input_id[0].tolist(), scores[input_id == step_tag_id]


def score_pqm(self, question, steps):
    """WindyLee0822/Process_Q_Model, bon_eval_hf.py; the logit as a probability."""
    query = (
        "Below is an instruction that describes a task.\nWrite a response that appropriately "
        f"completes the request.\n\n### Instruction:\n{question}\n\n"
        "### Response: Let's think step by step"
    )
    answer = " [PRM]\n".join(_renumbered(steps)) + " [PRM]"
    ids = self.tokenizer.encode(f"{query}\n{answer}", add_special_tokens=False)
    marks = torch.tensor(ids) == self.tokenizer.encode("[PRM]", add_special_tokens=False)[-1]
    return ids, self.model(torch.tensor([ids]))[0][marks].sigmoid()


def score_skywork(self, question, steps):
    """skywork-o1-prm-inference, model_utils/io_utils.py; the score of a step's last line."""
    ids = self.tokenizer.encode(self.tokenizer.bos_token + question + "\n")
    flags, step_token = [0] * len(ids), self.tokenizer.encode("\n")[-1]
    for step in steps:
        for line in step.split("\n"):
            line_ids = [*(self.tokenizer.encode(line) if line != "" else []), step_token]
            ids += line_ids
            flags += [0] * len(line_ids)
        flags[-1] = 1
    return ids, self.model(torch.tensor([ids]))[0][torch.tensor(flags) == 1].sigmoid()


def score_trl(self, question, steps):
    """trl, PRMTrainer.tokenize_row, with step_separator "\\n\\n"."""
    tokenizer = self.tokenizer
    ids = tokenizer(question, add_special_tokens=False)["input_ids"]
    separator_ids = tokenizer.encode("\n\n", add_special_tokens=False)
    completions = [tokenizer(s, add_special_tokens=False)["input_ids"] for s in steps]
    ends = []
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    for completion in completions:
        ids = ids + completion + separator_ids
        ends.append(len(ids) - 1)
    return ids, self.model(torch.tensor([ids])).logits[0][ends].softmax(dim=-1)[:, 1]


def score_pure(self, question, steps):
    """Model card of jinachris/PURE-PRM-7B; its reward, -1 to 1, as 0 to 1."""
    tokenizer, options = self.tokenizer, {"add_special_tokens": False, "return_tensors": "pt"}
    step_separator_token = tokenizer("\n", **options)["input_ids"]
    input_ids, score_ids = tokenizer(question, **options)["input_ids"], []
    for step in [s.rstrip() for s in steps]:
        step_ids = tokenizer(step, **options)["input_ids"]
        input_ids = torch.cat([input_ids, step_ids, step_separator_token], dim=-1)
        score_ids.append(input_ids.size(-1) - 1)
    probs = self.model(input_ids).logits[0][score_ids].softmax(dim=-1)
    return input_ids[0].tolist(), (probs[:, 1] - probs[:, 0] + 1) / 2


def score_rlhflow(self, question, steps):
    """RLHFlow/RLHF-Reward-Modeling, math-rm/prm_evaluate.py: one pass for each step."""
    candidate_tokens = [self.tokenizer.encode(sign)[-1] for sign in "+-"]
    conversation, scores, ids = [], [], []
    for k, step in enumerate(steps):
        text = f"{question} {step}" if k == 0 else step
        conversation += [("user", text), ("assistant", "+")]
        ids = self.chat(*conversation)
        logits = self.model(torch.tensor([ids])).logits[:, -3, candidate_tokens]
        scores.append(logits.softmax(dim=-1)[0, 0])
    return ids[:-1], scores


def score_rlhflow_orm(self, question, steps):
    ids, [score] = score_rlhflow(self, question, ["\n\n".join(steps)])
    return ids, [score] * len(steps)


def score_qwen(self, question, steps):
    """Model card of Qwen/Qwen2.5-Math-PRM-7B."""
    ids = self.chat(
        SYSTEM, ("user", question), ("assistant", "<extra_0>".join(steps) + "<extra_0>")
    )
    marks = [i for i, token in enumerate(ids) if token == self.tokenizer.encode("<extra_0>")[0]]
    probabilities = self.model(torch.tensor([ids])).softmax(dim=-1)
    return ids[: marks[-1] + 1], probabilities[0, marks, 1]


def score_qwen_orm(self, question, steps):
    """Model card of Qwen/Qwen2.5-Math-RM-72B; the logit as a probability."""
    ids = self.chat(SYSTEM, ("user", question), ("assistant", "\n\n".join(steps)))
    return ids, [self.model(torch.tensor([ids]))[0, -1, 0].sigmoid()] * len(steps)


def score_orm(self, question, steps):
    """Model card of Skywork/Skywork-Reward-Llama-3.1-8B; the logit as a probability."""
    ids = self.chat(("user", question), ("assistant", "\n\n".join(steps)))
    return ids, [self.model(torch.tensor([ids])).logits[0][0].sigmoid()] * len(steps)


SCORERS = {name: globals()[f"score_{name.replace('-', '_')}"] for name in WRITERS}


# --- solutions -----------------------------------------------------------------------------------

PIECES = [
    "16 - 3 = 13",
    "so she has 1,234.50 left",
    "(a) 负数不行 🙂",
    "“quoted” – e\u0301té\u00a0x",
    "$\\frac{1}{2}$.",
    "Step 7: again",
    "\tif x:\n  y = 2",
    "ends in a dot.\nand goes on",
    "+ - ×",
    "100%",
    "\\boxed{13}!",
]


def random_steps(dice: random.Random) -> list[str]:
    """1 to 6 steps, some of them of one character, some very long."""

    def step():
        if dice.random() < 0.1:
            return dice.choice("7x.é负")
        count = 40 if dice.random() < 0.03 else dice.randint(1, 3)
        return " ".join(dice.choice(PIECES) for _ in range(count)).strip()

    return [step() for _ in range(dice.randint(1, 6))]
