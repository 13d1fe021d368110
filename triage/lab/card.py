"""The model card: what a bundle is, what it was trained on, and what it may not be used for."""

import json
from typing import Any

from triage.core.bundle import ModelSpec

_TEXT = """# {name} {version}: development weights

**Trained only on synthetic volumes. Not validated on patients. Research software, not a medical device.**
These weights exist so that the whole path can be installed, tested and measured. They must not be used to
decide about a patient. A site trains and validates its own weights with the same commands.

## What it does

Reads one b=1000 volume of a brain, preprocessed as `spec.json` says, and gives the probability that
DWI-ASPECTS is 1 to 6 rather than 7 to 10. The network is the RRCNN of Do et al., Diagnostics 2020;10:803.

## Training data

Synthetic volumes whose ASPECTS is known by construction (rule: a region counts from 20 per cent coverage).
No patient's image was used. The figures below come from heads that training never saw, but from the same
generator: they say nothing about sensitivity or specificity in patients, about any vendor's scanner, or
about the figures of the paper.

- Head label maps: SynthSeg training label maps (github.com/BBillot/SynthSeg), Apache-2.0. Eleven heads for
  training, three for validation, three for testing. This is the sample size for anatomy.
- ASPECTS regions and arterial territories: derived from the JHU arterial atlas, CC BY-SA 4.0.
- The golden case: the ICBM 152 average brain (notice in triage/phantom/packaged), not used for training.

Run (each stage is epochs, pixels a side, every which slice): `{run}`
Epochs done: {epochs}, then batch-norm statistics refreshed on full studies of training heads.
Data hash of the training studies: `{data_hash}`

## Test figures (synthetic, {studies} studies, {heads} heads; 95 per cent intervals)

| | value | interval |
|---|---|---|
{rows}

Volume-only reader, given the true infarct volume: AUC {volume_auc:.3f}
({volume_low:.3f} to {volume_high:.3f}).
Temperature {temperature:.3f} and the thresholds ({thresholds}) come from the validation heads alone.

Errors at threshold 0.5 by true ASPECTS: {by_score}.

## Known limits

One seed, few passes over the data, eleven heads. No haemorrhage, tumour, motion, missing slices or bilateral
infarcts in the training data. Infarcts lie in one hemisphere's ten regions and 6 mm around them.
"""


def card(spec: ModelSpec, report: dict[str, Any], trained: dict[str, Any]) -> str:
    """CARD.md of a bundle."""
    test, volume = report["test"], report["volume_only"]
    return _TEXT.format(
        name=spec.name,
        version=spec.version,
        run=json.dumps(trained["run"]),
        epochs=len(trained["history"]),
        data_hash=trained["data_hash"],
        studies=test["studies"],
        heads=len(test["heads"]),
        rows="\n".join(_rows(test)),
        volume_auc=volume["auc"],
        volume_low=volume["auc_low"],
        volume_high=volume["auc_high"],
        temperature=report["temperature"],
        thresholds=", ".join(f"{name} {value:.3f}" for name, value in spec.thresholds.items()),
        by_score=", ".join(f"{s}: {n['errors']} of {n['studies']}" for s, n in test["by_score"].items()),
    )


def _rows(test: dict[str, Any]) -> list[str]:
    rows = [f"| AUC | {test['auc']:.3f} | {test['auc_low']:.3f} to {test['auc_high']:.3f} |"]
    for name, point in test["operating_points"].items():
        rows += [
            f"| {measure} at {name} ({point['threshold']:.3f}) | {rate['value']:.3f} |"
            f" {rate['low']:.3f} to {rate['high']:.3f} ({rate['count']}/{rate['of']}) |"
            for measure in ("sensitivity", "specificity", "accuracy")
            for rate in (point[measure],)
        ]
    return rows
