"""The steps of a rollout, in the order in which they are climbed.

It turns a policy into its ladder. What a step must show, and when the next one begins, is judged elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlops_assets.spec import CanarySpec


@dataclass(frozen=True)
class Step:
    """One rung.

    Parameters
    ----------
    weight : share of customers whose requests reach the canary, 0..1.
    minutes : least time at this step; of an A/B test's last step, all of it.
    shadow : the canary gets copies, and the stable version answers these customers too.
    """

    weight: float
    minutes: float
    shadow: bool = False

    def __str__(self) -> str:
        share = f"{100 * self.weight:g} % of customers"
        return f"copies of the requests of {share}" if self.shadow else share


def ladder(policy: CanarySpec) -> tuple[Step, ...]:
    """The steps of a policy, at least one; a shadow step comes first, at the weight of the step after it.

    The last step of an A/B test is the one that is held.

    >>> [str(step) for step in ladder(CanarySpec(weights=(0.05, 0.25)))]
    ['5 % of customers', '25 % of customers']
    >>> str(ladder(CanarySpec(shadow_minutes=10))[0])
    'copies of the requests of 10 % of customers'
    >>> [step.minutes for step in ladder(CanarySpec(weights=(0.05, 0.5), ab_hours=72))]
    [30.0, 4320.0]
    """
    shadow = (Step(policy.weights[0], policy.shadow_minutes, shadow=True),) if policy.shadow_minutes else ()
    *climb, last = (Step(weight, policy.minutes) for weight in policy.weights)
    if policy.ab_hours:
        last = replace(last, minutes=60 * policy.ab_hours)
    return (*shadow, *climb, last)
