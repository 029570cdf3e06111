"""Import path of results that earlier versions pickled; the classes are in `scalable_nb.client`."""

from scalable_nb.client.futures import FutureList, PartialResult, TaskFailure, partial

__all__ = ["FutureList", "PartialResult", "TaskFailure", "partial"]
