from embedfleet.wire import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmbedItem(_message.Message):
    __slots__ = ("text", "token_ids", "id")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    token_ids: _common_pb2.TokenIds
    id: bytes
    def __init__(self, text: _Optional[bytes] = ..., token_ids: _Optional[_Union[_common_pb2.TokenIds, _Mapping]] = ..., id: _Optional[bytes] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("model", "items", "input_type", "instruction", "dimension", "normalize", "output_type", "truncation", "priority", "expected_contract_hash")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    model: bytes
    items: _containers.RepeatedCompositeFieldContainer[EmbedItem]
    input_type: _common_pb2.InputType
    instruction: bytes
    dimension: int
    normalize: bool
    output_type: _common_pb2.OutputType
    truncation: _common_pb2.Truncation
    priority: _common_pb2.Priority
    expected_contract_hash: bytes
    def __init__(self, model: _Optional[bytes] = ..., items: _Optional[_Iterable[_Union[EmbedItem, _Mapping]]] = ..., input_type: _Optional[_Union[_common_pb2.InputType, str]] = ..., instruction: _Optional[bytes] = ..., dimension: _Optional[int] = ..., normalize: _Optional[bool] = ..., output_type: _Optional[_Union[_common_pb2.OutputType, str]] = ..., truncation: _Optional[_Union[_common_pb2.Truncation, str]] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., expected_contract_hash: _Optional[bytes] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("values", "packed", "scale", "num_tokens", "truncated", "error", "id")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    NUM_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    values: bytes
    packed: bytes
    scale: float
    num_tokens: int
    truncated: bool
    error: _common_pb2.ItemError
    id: bytes
    def __init__(self, values: _Optional[bytes] = ..., packed: _Optional[bytes] = ..., scale: _Optional[float] = ..., num_tokens: _Optional[int] = ..., truncated: _Optional[bool] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ..., id: _Optional[bytes] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings", "dimension", "output_type", "usage", "timings", "provenance")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    dimension: int
    output_type: _common_pb2.OutputType
    usage: _common_pb2.Usage
    timings: _common_pb2.Timings
    provenance: _common_pb2.Provenance
    def __init__(self, embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., dimension: _Optional[int] = ..., output_type: _Optional[_Union[_common_pb2.OutputType, str]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ...) -> None: ...

class EmbedStreamRequest(_message.Message):
    __slots__ = ("model", "items", "input_type", "instruction", "dimension", "normalize", "output_type", "truncation", "priority", "expected_contract_hash")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    model: bytes
    items: _containers.RepeatedCompositeFieldContainer[EmbedItem]
    input_type: _common_pb2.InputType
    instruction: bytes
    dimension: int
    normalize: bool
    output_type: _common_pb2.OutputType
    truncation: _common_pb2.Truncation
    priority: _common_pb2.Priority
    expected_contract_hash: bytes
    def __init__(self, model: _Optional[bytes] = ..., items: _Optional[_Iterable[_Union[EmbedItem, _Mapping]]] = ..., input_type: _Optional[_Union[_common_pb2.InputType, str]] = ..., instruction: _Optional[bytes] = ..., dimension: _Optional[int] = ..., normalize: _Optional[bool] = ..., output_type: _Optional[_Union[_common_pb2.OutputType, str]] = ..., truncation: _Optional[_Union[_common_pb2.Truncation, str]] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., expected_contract_hash: _Optional[bytes] = ...) -> None: ...

class EmbedStreamResponse(_message.Message):
    __slots__ = ("embeddings", "dimension", "output_type", "usage", "timings", "provenance", "error")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    dimension: int
    output_type: _common_pb2.OutputType
    usage: _common_pb2.Usage
    timings: _common_pb2.Timings
    provenance: _common_pb2.Provenance
    error: _common_pb2.ItemError
    def __init__(self, embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., dimension: _Optional[int] = ..., output_type: _Optional[_Union[_common_pb2.OutputType, str]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., provenance: _Optional[_Union[_common_pb2.Provenance, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.ItemError, _Mapping]] = ...) -> None: ...
