"""What a plain user of transformers would do, beside which methods are tested."""

from __future__ import annotations

import torch


def asked(model, text, answer):
    """What a model is given for a prompt and its answer, and where each token is predicted."""
    if model.layout.architecture == "masked":
        target = model.tokenizer(answer, add_special_tokens=False)["input_ids"]
        ids = model.tokenizer(text + " [MASK]" * len(target))["input_ids"]
        places = [at for at, one in enumerate(ids) if one == model.tokenizer.mask_token_id]
        return {"input_ids": torch.tensor([ids])}, places, target
    target = model.tokenizer(answer)["input_ids"][:-1]
    start = model.model.generation_config.decoder_start_token_id
    written = torch.tensor([[start, *target[:-1]]])
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    given = {"input_ids": ids, "decoder_input_ids": written}
    return given, list(range(len(target))), target
