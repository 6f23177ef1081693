"""Tests that may be looked at as often as one likes.

Each is a pure function of the evidence so far. Its error probabilities hold for the whole course
of an attempt, however often and whenever it is asked, so a verdict may be acted on the moment it
appears. No number makes them raise: what cannot be judged is Invalid.
"""

from modelrollout.gates.sequential.events import rate_upper_bound, two_arm_counts
from modelrollout.gates.sequential.judgement import Judgement
from modelrollout.gates.sequential.latencies import log_information, log_latency
from modelrollout.gates.sequential.means import mean_limit, mean_ratio
from modelrollout.gates.sequential.scores import bounded_mean, paired_bounded
from modelrollout.gates.sequential.shares import proportion
from modelrollout.gates.sequential.stopping_line import FEWEST_REQUESTS
from modelrollout.gates.verdict import Verdict

__all__ = [
    "FEWEST_REQUESTS",
    "Judgement",
    "Verdict",
    "bounded_mean",
    "log_information",
    "log_latency",
    "mean_limit",
    "mean_ratio",
    "paired_bounded",
    "proportion",
    "rate_upper_bound",
    "two_arm_counts",
]
