"""What is decided over which images, by which rules."""

from __future__ import annotations

from panels import FEED, RATE, Dashboard, Panel

RULES = '{feed=~"$feed", shadow="%s"}'

VERDICTS = Dashboard(
    "imagewire-business",
    "Imagewire: verdicts",
    [
        *(
            Panel(
                f"Images: {action}",
                "In the time shown.",
                [
                    (
                        f'sum(increase(imagewire_frames_out_total{{feed=~"$feed", '
                        f'action="{action}"}}[$__range]))',
                        "",
                    )
                ],
                kind="stat",
                width=6,
            )
            for action in ("allow", "review", "block")
        ),
        Panel(
            "Decisions of people",
            "In the time shown.",
            [('sum(increase(imagewire_reviews_total{decision=~"allow|block"}[$__range]))', "")],
            kind="stat",
            width=6,
        ),
        Panel(
            "Verdicts",
            "Images a second.",
            [(f"sum by (action) (rate(imagewire_frames_out_total{FEED}{RATE}))", "{{action}}")],
            "ops",
            stacked=True,
        ),
        Panel(
            "Blocked, by feed",
            "Share of the feed's images.",
            [
                (
                    f'sum by (feed) (rate(imagewire_frames_out_total{{feed=~"$feed", '
                    f'action="block"}}{RATE})) '
                    f"/ sum by (feed) (rate(imagewire_frames_out_total{FEED}{RATE}))",
                    "{{feed}}",
                )
            ],
            "percentunit",
        ),
        Panel(
            "For review, by feed",
            "Share of the feed's images.",
            [
                (
                    f'sum by (feed) (rate(imagewire_frames_out_total{{feed=~"$feed", '
                    f'action="review"}}{RATE})) '
                    f"/ sum by (feed) (rate(imagewire_frames_out_total{FEED}{RATE}))",
                    "{{feed}}",
                )
            ],
            "percentunit",
        ),
        Panel(
            "Images, by feed",
            "With a verdict, a second.",
            [(f"sum by (feed) (rate(imagewire_frames_out_total{FEED}{RATE}))", "{{feed}}")],
            "ops",
            stacked=True,
        ),
        Panel(
            "Labels",
            "Images a second in which something of the label was seen; the most frequent ones.",
            [
                (
                    "topk(15, sum by (label) "
                    f"(rate(imagewire_images_with_label_total{FEED}{RATE})))",
                    "{{label}}",
                )
            ],
            "ops",
        ),
        Panel(
            "Labels, in the time shown",
            "By feed.",
            [
                (
                    "topk(50, sum by (feed, label) "
                    f"(increase(imagewire_images_with_label_total{FEED}[$__range])))",
                    "",
                )
            ],
            kind="table",
        ),
        Panel(
            "Rules",
            "Images a second on which a rule fired; the most frequent ones.",
            [
                (
                    "topk(15, sum by (rule, action) "
                    f"(rate(imagewire_rules_fired_total{RULES % 'false'}{RATE})))",
                    "{{rule}}: {{action}}",
                )
            ],
            "ops",
        ),
        Panel(
            "Rules, in the time shown",
            "By feed.",
            [
                (
                    "topk(50, sum by (feed, rule, action) "
                    f"(increase(imagewire_rules_fired_total{RULES % 'false'}[$__range])))",
                    "",
                )
            ],
            kind="table",
        ),
        Panel(
            "Shadow rules",
            "What they would have done: they have no part in verdicts.",
            [
                (
                    "topk(15, sum by (rule, action) "
                    f"(rate(imagewire_rules_fired_total{RULES % 'true'}{RATE})))",
                    "{{rule}}: {{action}}",
                )
            ],
            "ops",
        ),
        Panel(
            "Reviews",
            "Decisions of people a second, by what they say.",
            [(f"sum by (decision) (rate(imagewire_reviews_total{RATE}))", "{{decision}}")],
            "ops",
            stacked=True,
        ),
        Panel(
            "Banned images known",
            "Entries of banlists by kind: the same in every worker.",
            [("max by (kind) (imagewire_bans)", "{{kind}}")],
        ),
        Panel(
            "Erased and expired",
            "Frames dropped because their image was erased; rows and vectors whose time was over.",
            [
                (f"sum by (feed) (increase(imagewire_frames_forgotten_total{RATE}))", "{{feed}}"),
                (f"sum by (store) (increase(imagewire_expired_total{RATE}))", "{{store}}"),
            ],
        ),
    ],
    {"feed": "label_values(imagewire_frames_in_total, feed)"},
    since="now-24h",
    refresh="1m",
)
