"""What models say of the images of each feed, whether it changes, and whether people agree."""

from __future__ import annotations

from panels import FEED, RATE, Dashboard, Panel, quantiles

SCORE = '{feed=~"$feed", name=~"$score"}'
DRIFTING = "max by (feed, kind, model, name)"

MODEL_HEALTH = Dashboard(
    "imagewire-models",
    "Imagewire: models",
    [
        Panel(
            "Distribution of scores",
            "Images by score, over time; choose one score above.",
            [(f"sum by (le) (increase(imagewire_score_bucket{SCORE}{RATE}))", "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            "Quantiles of scores",
            "By name.",
            quantiles("imagewire_score", SCORE, by="name"),
            maximum=1,
        ),
        Panel(
            "Mean score by feed",
            "A model that was exchanged shows as a step in all of them.",
            [
                (
                    f"sum by (feed, name) (rate(imagewire_score_sum{SCORE}{RATE})) "
                    f"/ sum by (feed, name) (rate(imagewire_score_count{SCORE}{RATE}))",
                    "{{feed}} {{name}}",
                )
            ],
        ),
        Panel(
            "Drift of scores",
            "Population stability index, the last day against the week before. Below 0.1: little "
            "change; from 0.25 on: look into it.",
            [
                (
                    f'{DRIFTING} (imagewire_drift_psi{{kind="score", feed=~"$feed"}})',
                    "{{feed}} {{name}} ({{model}})",
                )
            ],
            thresholds=(0.1, 0.25),
        ),
        Panel(
            "Drift of pictures",
            "The same of random projections of the embedding: the one that moved most.",
            [
                (
                    f'{DRIFTING} (imagewire_drift_psi{{kind="embedding", feed=~"$feed"}})',
                    "{{feed}} ({{model}})",
                )
            ],
            thresholds=(0.1, 0.25),
        ),
        Panel(
            "Drift against chance",
            "The index divided by what it stays below 999 times in 1000 if nothing changed: "
            "up to 1 it says nothing.",
            [
                (
                    f"{DRIFTING} (imagewire_drift_psi{FEED}) "
                    f"/ {DRIFTING} (imagewire_drift_psi_by_chance{FEED})",
                    "{{feed}} {{name}}",
                )
            ],
            thresholds=(1,),
        ),
        Panel(
            "What drifted furthest",
            "Now.",
            [(f"topk(20, {DRIFTING} (imagewire_drift_psi{FEED}))", "")],
            kind="table",
        ),
        Panel(
            "Precision of rules",
            "Share of a rule's verdicts that people confirm, of images drawn at random, with its "
            "95 % interval.",
            [
                (
                    "max by (rule, machine_verdict, bound) (imagewire_rule_precision)",
                    "{{rule}} {{machine_verdict}} {{bound}}",
                )
            ],
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Verdicts that people changed",
            "Share of those that they looked at. They look at what is doubtful: it is no estimate "
            "for the rule.",
            [
                (
                    "max by (rule, machine_verdict) (imagewire_rule_overturned_images) "
                    "/ max by (rule, machine_verdict) (imagewire_rule_decided_images)",
                    "{{rule}} {{machine_verdict}}",
                )
            ],
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Images behind the precision of rules",
            "Drawn at random and decided.",
            [
                (
                    "max by (rule, machine_verdict) (imagewire_rule_audited_images)",
                    "{{rule}} {{machine_verdict}}",
                )
            ],
        ),
        Panel(
            "Calibration: what scores are worth",
            "Of the images in a tenth of the score, the share that people gave the label.",
            [
                (
                    "max by (model, name, tenth, audited) "
                    '(imagewire_score_true_share{name=~"$score"})',
                    "{{name}} from {{tenth}}, audited {{audited}} ({{model}})",
                )
            ],
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Calibration: how far scores are off",
            "That share less the mean score: 0 for a score that is a probability.",
            [
                (
                    "max by (model, name, tenth, audited) "
                    '(imagewire_score_true_share{name=~"$score"}) '
                    "- max by (model, name, tenth, audited) "
                    '(imagewire_score_mean{name=~"$score"})',
                    "{{name}} from {{tenth}}, audited {{audited}} ({{model}})",
                )
            ],
        ),
        Panel(
            "Images behind the calibration",
            "Decided by people, by tenth of the score.",
            [
                (
                    "max by (model, name, tenth, audited) "
                    '(imagewire_score_decided_images{name=~"$score"})',
                    "{{name}} from {{tenth}}, audited {{audited}} ({{model}})",
                )
            ],
        ),
        Panel(
            "Since ClickHouse was asked",
            "And how long it took to answer.",
            [
                ("time() - max(imagewire_model_health_looked_at_seconds)", "since the last answer"),
                ("max(imagewire_model_health_look_seconds)", "it took"),
            ],
            "s",
        ),
    ],
    {
        "feed": "label_values(imagewire_score_count, feed)",
        "score": "label_values(imagewire_score_count, name)",
    },
    since="now-7d",
    refresh="5m",
)
