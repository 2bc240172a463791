"""Whether images get through, how fast, and what is in the way."""

from __future__ import annotations

from panels import FEED, RATE, WORKER, Dashboard, Panel, quantiles

SERVICE = Dashboard(
    "imagewire",
    "Imagewire: service",
    [
        Panel(
            "Workers", "That answer Prometheus.", [(f"sum(up{WORKER})", "")], kind="stat", width=4
        ),
        Panel(
            "Oldest image waits",
            "Age of the oldest record that is not finished, of all partitions.",
            [("max(imagewire_consumer_lag_seconds)", "")],
            "s",
            "stat",
            4,
            thresholds=(60, 300),
        ),
        Panel(
            "Latency, p99",
            "From the Kafka timestamp to the verdict.",
            [quantiles("imagewire_latency_seconds", FEED)[2]],
            "s",
            "stat",
            4,
            thresholds=(5, 10),
        ),
        Panel(
            "Images a second",
            "Finished, as findings or as dead letters.",
            [
                (
                    f"sum(rate(imagewire_frames_out_total{FEED}{RATE})) "
                    f"+ (sum(rate(imagewire_frames_failed_total{FEED}{RATE})) or vector(0))",
                    "",
                )
            ],
            "ops",
            "stat",
            4,
        ),
        Panel(
            "Dead letters",
            "Share of the images taken.",
            [
                (
                    f"(sum(rate(imagewire_frames_failed_total{FEED}{RATE})) or vector(0)) "
                    f"/ sum(rate(imagewire_frames_in_total{FEED}{RATE}))",
                    "",
                )
            ],
            "percentunit",
            "stat",
            4,
            thresholds=(0.01, 0.05),
        ),
        Panel(
            "Memory",
            "Of the worker that is nearest to its limit, with its children.",
            [
                (
                    "max(sum by (instance) (imagewire_memory_bytes) "
                    "/ on (instance) imagewire_memory_limit_bytes)",
                    "",
                )
            ],
            "percentunit",
            "stat",
            4,
            thresholds=(0.75, 0.9),
        ),
        Panel(
            "Images in and out",
            "Records taken from Kafka, finished by action, and dead letters.",
            [
                (f"sum(rate(imagewire_frames_in_total{FEED}{RATE}))", "in"),
                (f"sum by (action) (rate(imagewire_frames_out_total{FEED}{RATE}))", "{{action}}"),
                (f"sum(rate(imagewire_frames_failed_total{FEED}{RATE}))", "failed"),
            ],
            "ops",
        ),
        Panel(
            "Latency, Kafka timestamp to verdict",
            "Quantiles over all workers.",
            quantiles("imagewire_latency_seconds", FEED),
            "s",
        ),
        Panel(
            "Lag in seconds",
            "Age of the oldest record that is not finished, by topic.",
            [("max by (topic) (imagewire_consumer_lag_seconds)", "{{topic}}")],
            "s",
            thresholds=(300,),
        ),
        Panel(
            "Lag in records",
            "Records of each topic that are not acknowledged yet.",
            [
                (
                    "sum by (topic) (max by (topic, partition) (imagewire_consumer_lag))",
                    "{{topic}}",
                )
            ],
        ),
        Panel(
            "Waiting before a stage",
            "A queue that stays full names the slowest stage: the one behind it.",
            [("sum by (stage) (imagewire_queue_depth)", "{{stage}}")],
        ),
        Panel(
            "Time a stage takes, p95",
            "One image for fetch, one batch for the others.",
            [quantiles("imagewire_stage_seconds", by="stage")[1]],
            "s",
        ),
        Panel(
            "Time a stage takes, p50",
            "One image for fetch, one batch for the others.",
            [quantiles("imagewire_stage_seconds", by="stage")[0]],
            "s",
        ),
        Panel(
            "Device use",
            "Share of the time in which copies of the models were at work: at 1 it is the limit.",
            [
                (
                    'sum by (instance) (rate(imagewire_stage_seconds_sum{stage="operators"}'
                    f"{RATE})) / on (instance) imagewire_model_copies",
                    "{{instance}}",
                )
            ],
            "percentunit",
            maximum=1,
        ),
        Panel(
            "Batch size",
            "Mean frames in a batch on the device, and the most there may be at the moment.",
            [
                (
                    f"sum(rate(imagewire_batch_size_sum{RATE})) "
                    f"/ sum(rate(imagewire_batch_size_count{RATE}))",
                    "mean",
                ),
                ("min by (instance) (imagewire_batch_limit)", "limit of {{instance}}"),
            ],
        ),
        Panel(
            "Age of a batch's oldest image",
            "When the device took it, from its arrival in the worker.",
            quantiles("imagewire_batch_wait_seconds"),
            "s",
        ),
        Panel(
            "Failures by stage and reason",
            "Dead letters a second.",
            [
                (
                    f"sum by (stage, reason) (rate(imagewire_failures_total{RATE}))",
                    "{{stage}}: {{reason}}",
                )
            ],
            "ops",
            stacked=True,
        ),
        Panel(
            "Failures by feed",
            "Dead letters a second.",
            [(f"sum by (feed) (rate(imagewire_frames_failed_total{FEED}{RATE}))", "{{feed}}")],
            "ops",
            stacked=True,
        ),
        Panel(
            "Sink errors",
            "Writes tried again, and images refused for good.",
            [
                (f"sum by (sink) (rate(imagewire_sink_retries_total{RATE}))", "{{sink}} retries"),
                (
                    f"sum by (sink) (rate(imagewire_sink_rejections_total{RATE}))",
                    "{{sink}} rejections",
                ),
            ],
            "ops",
        ),
        Panel(
            "Memory of the workers",
            "Resident, of the worker and of the children that decode for it; and the limit.",
            [
                ("sum by (instance, part) (imagewire_memory_bytes)", "{{instance}} {{part}}"),
                ("max by (instance) (imagewire_memory_limit_bytes)", "{{instance}} limit"),
            ],
            "bytes",
        ),
        Panel(
            "Memory of the device",
            "Only with a GPU: what is free, what torch holds, and what tensors take.",
            [
                (
                    "sum by (instance, kind) (imagewire_device_memory_bytes)",
                    "{{instance}} {{kind}}",
                )
            ],
            "bytes",
        ),
        Panel(
            "Processors",
            "Busy processors of each worker, without its children.",
            [(f"rate(process_cpu_seconds_total{WORKER}{RATE})", "{{instance}}")],
        ),
        Panel(
            "Event loop",
            "How late timers are: what holds the loop delays heartbeats and fetches.",
            quantiles("imagewire_event_loop_delay_seconds"),
            "s",
        ),
        Panel(
            "Model runs that were spared",
            "Images that an operator did not have to look at, by what spared it.",
            [
                (
                    f"sum by (operator, rung) (rate(imagewire_model_runs_saved_total{RATE}))",
                    "{{operator}}: {{rung}}",
                )
            ],
            "ops",
        ),
        Panel(
            "Out of memory, and let go",
            "Batches that did not fit into the device; frames that a rebalance left to others.",
            [
                (f"sum(increase(imagewire_out_of_memory_total{RATE}))", "did not fit"),
                (
                    f"sum(increase(imagewire_frames_dropped_unacknowledged_total{RATE}))",
                    "left to others",
                ),
            ],
        ),
        Panel(
            "Webhooks",
            "Attempts to tell a receiver of a verdict.",
            [
                (
                    f"sum by (webhook, outcome) (rate(imagewire_webhooks_total{RATE}))",
                    "{{webhook}} {{outcome}}",
                )
            ],
            "ops",
        ),
        Panel(
            "HTTP API: requests",
            "Answers a second, by status; only where `imagewire serve` is scraped too.",
            [(f"sum by (status) (rate(imagewire_api_requests_total{RATE}))", "{{status}}")],
            "ops",
            stacked=True,
        ),
        Panel(
            "HTTP API: time until an answer begins, p95",
            "By route.",
            [quantiles("imagewire_api_request_seconds", by="route")[1]],
            "s",
        ),
        Panel(
            "Models in use",
            "By operator, and in how many workers.",
            [("count by (operator, model) (imagewire_model_info)", "")],
            kind="table",
        ),
        Panel(
            "Policy in force",
            "Its version, and in how many workers.",
            [("count by (version) (imagewire_policy_info)", "")],
            kind="table",
        ),
    ],
    {"feed": "label_values(imagewire_frames_in_total, feed)"},
)
