from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class InputType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INPUT_TYPE_UNSPECIFIED: _ClassVar[InputType]
    QUERY: _ClassVar[InputType]
    DOCUMENT: _ClassVar[InputType]

class OutputType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_TYPE_UNSPECIFIED: _ClassVar[OutputType]
    FLOAT32: _ClassVar[OutputType]
    FLOAT16: _ClassVar[OutputType]
    INT8: _ClassVar[OutputType]
    UINT8: _ClassVar[OutputType]
    BINARY: _ClassVar[OutputType]
    UBINARY: _ClassVar[OutputType]

class Truncation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATION_UNSPECIFIED: _ClassVar[Truncation]
    NONE: _ClassVar[Truncation]
    END: _ClassVar[Truncation]
    START: _ClassVar[Truncation]

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    INTERACTIVE: _ClassVar[Priority]
    BULK: _ClassVar[Priority]
INPUT_TYPE_UNSPECIFIED: InputType
QUERY: InputType
DOCUMENT: InputType
OUTPUT_TYPE_UNSPECIFIED: OutputType
FLOAT32: OutputType
FLOAT16: OutputType
INT8: OutputType
UINT8: OutputType
BINARY: OutputType
UBINARY: OutputType
TRUNCATION_UNSPECIFIED: Truncation
NONE: Truncation
END: Truncation
START: Truncation
PRIORITY_UNSPECIFIED: Priority
INTERACTIVE: Priority
BULK: Priority

class ItemError(_message.Message):
    __slots__ = ("code", "reason", "field", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    field: str
    message: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("input_tokens", "num_items", "num_truncated", "num_failed")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    NUM_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    NUM_FAILED_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    num_items: int
    num_truncated: int
    num_failed: int
    def __init__(self, input_tokens: _Optional[int] = ..., num_items: _Optional[int] = ..., num_truncated: _Optional[int] = ..., num_failed: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("tokenize_nanoseconds", "queue_nanoseconds", "compute_nanoseconds", "total_nanoseconds")
    TOKENIZE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NANOSECONDS_FIELD_NUMBER: _ClassVar[int]
    tokenize_nanoseconds: int
    queue_nanoseconds: int
    compute_nanoseconds: int
    total_nanoseconds: int
    def __init__(self, tokenize_nanoseconds: _Optional[int] = ..., queue_nanoseconds: _Optional[int] = ..., compute_nanoseconds: _Optional[int] = ..., total_nanoseconds: _Optional[int] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("model", "revision", "contract_hash")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_HASH_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: str
    contract_hash: str
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[str] = ..., contract_hash: _Optional[str] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...
