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


def descended(model, row, prefixes, added, measured, config, steps):
    """δ of one fact by the papers' loss, one text at a time over the whole model, Adam by torch.

    δ is added to what the module `added` puts out at the subject's last token; its length is held
    to the median of what `measured` puts out there. The model has one special token behind a text.
    """
    state = {"at": 0, "delta": None, "length": 0.0}

    def watch(_, __, output):
        hidden = output[0] if isinstance(output, tuple) else output
        state["length"] = float(hidden[0, state["at"]].detach().norm())

    def add(_, __, output):
        if state["delta"] is None:
            return output
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[0, state["at"]] = hidden[0, state["at"]] + state["delta"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    def likely(inputs, at):
        state["at"] = at
        return model.model(**inputs).logits[0].log_softmax(-1)

    def last(text):
        return len(model.tokenizer(text)["input_ids"]) - 2

    texts = [
        (asked(model, p + row.text, row.target), last(p + row.text[: row.subject_span[1]]))
        for p in prefixes
    ]
    if model.layout.architecture == "masked":
        ids = model.tokenizer(f"{row.subject} is a [MASK].")["input_ids"]
        essence = {"input_ids": torch.tensor([ids])}
        place = ids.index(model.tokenizer.mask_token_id)
    else:
        essence, [place, *_], _ = asked(model, f"{row.subject} is a", "x")
    hooks = [
        model.model.get_submodule(module).register_forward_hook(hook)
        for module, hook in ((measured, watch), (added, add))
    ]
    lengths = []
    with torch.no_grad():
        before = likely(essence, last(row.subject))[place]
        for (inputs, _, _), at in texts:
            likely(inputs, at)
            lengths.append(state["length"])
    reference = sorted(lengths)[len(lengths) // 2]
    delta = torch.zeros_like(model.model.get_input_embeddings().weight[0])
    state["delta"] = delta.requires_grad_(True)
    adam = torch.optim.Adam([delta], lr=config.learning_rate)
    for _ in range(steps):
        loss = config.weight_decay * (delta**2).sum().add(1e-300).sqrt() / reference**2
        for (inputs, places, target), at in texts:
            loss = loss - likely(inputs, at)[places, target].mean() / len(texts)
        after = likely(essence, last(row.subject))[place]
        loss = loss + config.kl_factor * (after.exp() * (after - before)).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            if delta.norm() > config.clamp_factor * reference:
                delta.mul_(config.clamp_factor * reference / delta.norm())
    for hook in hooks:
        hook.remove()
    return delta.detach()
