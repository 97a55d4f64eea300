"""What make-family-golden.py asks of its own goldens before it writes them. Whatever is wrong ends the program."""

import torch

# |a - b| <= atol + rtol |b|: how near another program has to come.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
# What a mistake has to move a golden by, at least, to be found for certain.
VISIBLE = 100 * TOLERANCE["atol"]
# Rounding of sums.
EXACT = 1e-5


def require(condition, message):
    if not condition:
        raise SystemExit(message)


def distance(a, b):
    return (a - b).abs().max().item()


def check_shapes(found, length):
    for site, value in found.items():
        require(value.isfinite().all(), f"{site}: not finite")
        rows = [1, length, *value.shape[2:]]
        if site.startswith("attn_pattern"):
            rows = [1, value.shape[1], length, length]
        require(value.dim() >= 3 and list(value.shape) == rows, f"{site}: {list(value.shape)} for {length} tokens")


def identities(sites, layers):
    """Sites that are the sum of others: (sum, terms)."""
    yield "resid_pre.0", ["embed"]
    for i in range(layers):
        parallel = f"resid_mid.{i}" not in sites
        if not parallel:
            yield f"resid_mid.{i}", [f"resid_pre.{i}", f"attn_out.{i}"]
        before = [f"resid_pre.{i}", f"attn_out.{i}"] if parallel else [f"resid_mid.{i}"]
        yield f"resid_post.{i}", [*before, f"mlp_out.{i}"]
        if i > 0:
            yield f"resid_pre.{i}", [f"resid_post.{i - 1}"]


def check_identities(found, layers):
    """Contributions add up to the residual stream, and patterns mix values."""
    for total, terms in identities(found, layers):
        off = distance(found[total], sum(found[term] for term in terms))
        require(off < EXACT, f"{total} is not {' + '.join(terms)}: {off:.2g} off")
    for i in range(layers):
        pattern, v, z = (found[f"{site}.{i}"] for site in ["attn_pattern", "v", "z"])
        heads = pattern.shape[1]
        head_dim = z.shape[-1] // heads
        values = v.unflatten(-1, (-1, head_dim)).transpose(1, 2)  # [1, kv heads, T, head_dim]
        values = values.repeat_interleave(heads // values.shape[1], dim=1)
        off = distance((pattern @ values).transpose(1, 2).flatten(2), z)
        require(off < EXACT, f"attn_pattern.{i} @ v.{i} is not z.{i}: {off:.2g} off")
        require(pattern.triu(1).abs().max() == 0, f"attn_pattern.{i} looks ahead")
        require(distance(pattern.sum(-1), torch.ones(())) < EXACT, f"attn_pattern.{i} does not sum to 1")


def check_hidden_states(found, hidden_states, layers):
    """Modules hooked by name are where transformers itself takes its residual stream from."""
    names = [f"resid_pre.{i}" for i in range(layers)] + ["final_norm"]
    for name, state in zip(names, hidden_states, strict=True):
        require(torch.equal(found[name], state), f"{name} is not what output_hidden_states has")


def check_queries_and_keys(model, run, hooks, parts, found, layers):
    """The first token's key shows in the pattern; its query cannot, as that token sees only itself."""
    for site, expected in [("q", False), ("k", True)]:
        for i in range(layers):
            name, _, part = hooks[f"{site}.{i}"].partition("#")

            def change(_, __, output, part=part):
                features = torch.arange(output.shape[-1])
                own = parts[part](features) if part else features
                output[:, 0, own] += 1 + own % 2  # a LayerNorm takes away what is the same for all
                return output

            handle = model.get_submodule(name).register_forward_hook(change)
            try:
                off = distance(run(model)[f"attn_pattern.{i}"], found[f"attn_pattern.{i}"])
            finally:
                handle.remove()
            problem = "does not change" if expected else "changes"
            require((off > EXACT) == expected, f"{site}.{i} {problem} the pattern at the first token")


def check_distinct(found, layers):
    """No two sites hold the same numbers, so that none can be taken for another."""
    same = {frozenset([total, *terms]) for total, terms in identities(found, layers) if len(terms) == 1}
    names = sorted(found)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if found[a].shape == found[b].shape and frozenset([a, b]) not in same:
                off = distance(found[a], found[b])
                require(off > VISIBLE, f"{a} and {b} are almost the same ({off:.2g}): a mix-up would not be found")


def check_precision(found, exact):
    """Goldens are nearer to what double precision gives than others have to come to them."""
    for site, value in found.items():
        allowed = 0.1 * (TOLERANCE["atol"] + TOLERANCE["rtol"] * exact[site].abs())
        off = ((value - exact[site]).abs() / allowed).max().item()
        require(off < 1, f"{site}: rounding takes {off / 10:.0%} of the tolerance; other weights are needed")


def check_weights_matter(model, run, found):
    """Every weight shows: without what is random in it, some golden is another."""
    for name, weight in model.named_parameters():
        kept = weight.data.clone()
        weight.data.fill_(weight.mean().round().item())  # 1 for scales, else 0
        off = moved(run(model), found)
        weight.data.copy_(kept)
        require(off > VISIBLE, f"{name} shows in no golden ({off:.2g}): larger weights are needed")


def check_mistakes(model, run, found, family):
    """Every field of the config that has to be read shows."""
    for change in family.mistakes:
        config = family.config(**{**family.values, **change})
        other = type(model)._from_config(config, attn_implementation="eager").eval()
        other.load_state_dict(model.state_dict())
        off = moved(run(other), found)
        require(off > VISIBLE, f"{change} in the config shows in no golden ({off:.2g})")


def moved(found, before):
    return max(distance(value, before[site]) for site, value in found.items())
