from embedfleet.wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RerankRequest(_message.Message):
    __slots__ = ("model", "query", "documents", "instruction", "top_n", "return_documents", "raw_scores", "max_tokens_per_document", "truncation", "priority", "expected_contract_hash")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    RETURN_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_PER_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    model: bytes
    query: bytes
    documents: _containers.RepeatedScalarFieldContainer[bytes]
    instruction: bytes
    top_n: int
    return_documents: bool
    raw_scores: bool
    max_tokens_per_document: int
    truncation: _common_pb2.Truncation
    priority: _common_pb2.Priority
    expected_contract_hash: bytes
    def __init__(self, model: _Optional[bytes] = ..., query: _Optional[bytes] = ..., documents: _Optional[_Iterable[bytes]] = ..., instruction: _Optional[bytes] = ..., top_n: _Optional[int] = ..., return_documents: _Optional[bool] = ..., raw_scores: _Optional[bool] = ..., max_tokens_per_document: _Optional[int] = ..., truncation: _Optional[_Union[_common_pb2.Truncation, str]] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., expected_contract_hash: _Optional[bytes] = ...) -> None: ...

class RerankResult(_message.Message):
    __slots__ = ("index", "score", "document", "num_tokens", "truncated", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    score: float
    document: bytes
    num_tokens: int
    truncated: bool
    error: _common_pb2.ItemError
    def __init__(self, index: _Optional[int] = ..., score: _Optional[float] = ..., document: _Optional[bytes] = ..., num_tokens: _Optional[int] = ..., truncated: _Optional[bool] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("results", "usage", "timings", "provenance")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RerankResult]
    usage: _common_pb2.Usage
    timings: _common_pb2.Timings
    provenance: _common_pb2.Provenance
    def __init__(self, results: _Optional[_Iterable[_Union[RerankResult, _Mapping]]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ...) -> None: ...

class RerankStreamRequest(_message.Message):
    __slots__ = ("model", "query", "documents", "instruction", "top_n", "return_documents", "raw_scores", "max_tokens_per_document", "truncation", "priority", "expected_contract_hash", "id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    RETURN_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    RAW_SCORES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_PER_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    model: bytes
    query: bytes
    documents: _containers.RepeatedScalarFieldContainer[bytes]
    instruction: bytes
    top_n: int
    return_documents: bool
    raw_scores: bool
    max_tokens_per_document: int
    truncation: _common_pb2.Truncation
    priority: _common_pb2.Priority
    expected_contract_hash: bytes
    id: bytes
    def __init__(self, model: _Optional[bytes] = ..., query: _Optional[bytes] = ..., documents: _Optional[_Iterable[bytes]] = ..., instruction: _Optional[bytes] = ..., top_n: _Optional[int] = ..., return_documents: _Optional[bool] = ..., raw_scores: _Optional[bool] = ..., max_tokens_per_document: _Optional[int] = ..., truncation: _Optional[_Union[_common_pb2.Truncation, str]] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., expected_contract_hash: _Optional[bytes] = ..., id: _Optional[bytes] = ...) -> None: ...

class RerankStreamResponse(_message.Message):
    __slots__ = ("results", "usage", "timings", "provenance", "id", "error")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RerankResult]
    usage: _common_pb2.Usage
    timings: _common_pb2.Timings
    provenance: _common_pb2.Provenance
    id: bytes
    error: _common_pb2.ItemError
    def __init__(self, results: _Optional[_Iterable[_Union[RerankResult, _Mapping]]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., id: _Optional[bytes] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...
