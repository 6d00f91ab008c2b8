"""Bias audit: do two groups of words stand unequally near to two groups of attributes? With effect size and p-value.

    python examples/bias_audit.py --data my_tests.json --template "This is {}." --out report

The Word Embedding Association Test of Caliskan, Bryson & Narayanan 2017 (Semantics derived automatically from language corpora
contain human-like biases, Science 356, https://doi.org/10.1126/science.aal4230); with a template it is the sentence test of May et
al. 2019 (https://arxiv.org/abs/1903.10561). s(w) is the mean cosine of w to attributes A minus that to B. The effect size is
the difference of the mean s of targets X and Y, over the standard deviation of s of them all: -2 to 2, and 0 for no difference.
p is the share of equal splits of the targets whose difference is at least as large: of all splits where there are at most
--permutations, else of so many drawn ones. A large p shows no absence of bias.

The file is a JSON list of {"name", "targets": {X: [words], Y: [words]}, "attributes": {A: [words], B: [words]}}, and perhaps
"template" of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from arguments import existing_file
from tqdm import tqdm

import sentcore

SAMPLE = Path(__file__).parent / "data" / "associations.json"


def read_tests(path: Path) -> list[dict]:
    """The tests of a file; an error names the test."""
    try:
        tests = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        sys.exit(f"{path}: no JSON ({error}); accepted: a list of tests")
    if not isinstance(tests, list) or not tests:
        sys.exit(f"{path}: accepted: a JSON list of tests, at least one")
    for place, test in enumerate(tests):
        try:
            groups = [words for part in ("targets", "attributes") for words in test[part].values()]
            right = len(test["targets"]) == len(test["attributes"]) == 2 and isinstance(test["name"], str)
            right = right and all(len(words) >= 2 and all(isinstance(word, str) for word in words) for words in groups)
            right = right and len(groups[0]) == len(groups[1]) and "{}" in test.get("template", "{}")
        except (KeyError, TypeError, AttributeError):
            right = False
        if not right:
            sys.exit(
                f"{path}, test {place + 1}: accepted: a name, two targets with equally many words, two attributes, at least "
                "two words each, and a template, if any, with {}"
            )
    return tests


def associations(words: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """s(w) [W] of words [W, E], with attributes [A, E] and [B, E]; all rows of length 1."""
    return (words @ a.T).mean(axis=1) - (words @ b.T).mean(axis=1)


def splits(count: int, most: int, draw: np.random.Generator) -> tuple[np.ndarray, bool]:
    """([P, count] masks of half of the words, whether these are all that there are)."""
    half = count // 2
    if math.comb(count, half) <= most:
        chosen = np.array(list(combinations(range(count), half)))
        masks = np.zeros((len(chosen), count), dtype=bool)
        np.put_along_axis(masks, chosen, True, axis=1)
        return masks, True
    masks = np.zeros((most, count), dtype=bool)
    for mask in tqdm(masks, desc="permutations", leave=False):
        mask[draw.permutation(count)[:half]] = True
    return masks, False


def association_test(x: np.ndarray, y: np.ndarray, most: int, draw: np.random.Generator) -> dict[str, float]:
    """Effect size and p-value of s of the targets X and Y, [n] each."""
    both = np.concatenate([x, y])
    masks, every = splits(len(both), most, draw)
    sums = masks @ both  # of one half; the other is the rest
    observed = x.sum()
    at_least = int(np.sum(sums >= observed - 1e-9))  # sums in another order differ in the last bits
    p = at_least / len(masks) if every else (at_least + 1) / (len(masks) + 1)
    spread = both.std(ddof=1)
    effect = (x.mean() - y.mean()) / spread if spread > 0 else 0.0
    return {"effect": float(effect), "p": float(p), "permutations": len(masks)}


def draw_tests(results: list[dict], path: Path) -> None:
    """Every word's association, and the effect size of its test."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 0.9 + 0.75 * len(results)))
    for place, result in enumerate(results):
        for scores, shift, color in zip(result["scores"], (0.12, -0.12), ("tab:blue", "tab:orange"), strict=True):
            axis.plot(scores, np.full(len(scores), -place + shift), "|", color=color, markersize=11)
            axis.plot(scores.mean(), -place + shift, "o", color=color, markersize=5)
        label = f"d = {result['effect']:.2f}, p = {result['p']:.2g}"
        axis.text(1.02, -place, label, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set_yticks([-place for place in range(len(results))], [result["name"] for result in results], fontsize=8)
    axis.locator_params(axis="x", nbins=6)
    axis.set_xlabel("nearer to the second attribute  -  nearer to the first")
    axis.set_title("blue: first target, orange: second; dots are means", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=100, bbox_inches="tight")
    print(f"saved {path}")


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=existing_file, default=SAMPLE, help=".json: a list of tests")
    parser.add_argument("--model", default="minilm", help='"minilm", a folder or a hub id')
    parser.add_argument("--template", default="{}", help='a sentence around each word, as "This is {}."')
    parser.add_argument("--permutations", type=int, default=100_000, help="most splits of the targets looked at")
    parser.add_argument("--seed", type=int, default=0, help="of the permutations, where not all are looked at")
    parser.add_argument("--out", type=Path, help="folder for results.json and the picture (needs matplotlib)")
    options = parser.parse_args(arguments)
    if "{}" not in options.template or options.permutations < 1:
        sys.exit(
            f"--template is {options.template!r} and --permutations {options.permutations}; accepted: a text with {{}}, at least 1"
        )

    tests = read_tests(options.data)
    model = sentcore.SentenceEncoder(options.model)
    draw = np.random.default_rng(options.seed)
    results = []
    print(f"{'':<50}{'effect':>8}{'p':>10}{'splits':>9}")
    for test in tqdm(tests, desc="tests"):
        template = test.get("template", options.template)
        words = [list(group) for part in ("targets", "attributes") for group in test[part].values()]
        features = model.encode(
            [template.replace("{}", word) for group in words for word in group], normalize_embeddings=True
        )
        x, y, a, b = np.split(features.astype(np.float64), np.cumsum([len(group) for group in words])[:-1])
        scores = associations(x, a, b), associations(y, a, b)
        found = association_test(*scores, options.permutations, draw)
        name = " / ".join(test["targets"]) + " : " + " / ".join(test["attributes"])
        results.append({"name": f"{test['name']}\n{name}", "scores": scores, **found})
        tqdm.write(
            f"{test['name'] + ': ' + name:<50}{found['effect']:>8.2f}{found['p']:>10.2g}{found['permutations']:>9}"
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        kept = [{**result, "scores": [part.tolist() for part in result["scores"]]} for result in results]
        (options.out / "results.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False), encoding="utf-8")
        draw_tests(results, options.out / "bias_audit.png")
    return results


if __name__ == "__main__":
    main()
