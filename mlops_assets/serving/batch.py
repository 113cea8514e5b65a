"""Many messages in one request: each is answered, split and logged as if it had come alone.

Knows how instances become replies or problems, in their order; what a single message means is
`ModelService.predict`'s matter, and HTTP is `http`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import ValidationError

from mlops_assets.serving.problems import Problem, invalid
from mlops_assets.serving.schemas import BatchReply, PredictReply, PredictRequest, ProblemDocument

Predict = Callable[[PredictRequest], Awaitable[PredictReply]]


async def answer_all(predict: Predict, instances: Sequence[Any]) -> list[PredictReply | Problem]:
    """The reply to each instance, or what is wrong with it, in the order of the instances.

    Args:
        predict: answers one message.
        instances: the members of a `PredictRequest` each, as they came; a faulty one harms no other.
    """

    async def answer(instance: Any) -> PredictReply | Problem:
        try:
            return await predict(PredictRequest.model_validate(instance))
        except ValidationError as error:
            return invalid(error.errors())
        except Problem as problem:
            return problem

    return await asyncio.gather(*(answer(instance) for instance in instances))


def batch_reply(answers: Sequence[PredictReply | Problem]) -> BatchReply:
    """The reply to a batch: a problem stands where its instance's answer would."""
    failed = sum(isinstance(answer, Problem) for answer in answers)
    predictions = [_document(answer) for answer in answers]
    return BatchReply(predictions=predictions, failed=failed)


def _document(answer: PredictReply | Problem) -> PredictReply | ProblemDocument:
    return ProblemDocument.model_validate(answer.document()) if isinstance(answer, Problem) else answer
