# What convdsl.runtime.cuda.sums calls of cupy.cuda.nccl.
available: bool
NCCL_FLOAT32: int
NCCL_FLOAT64: int
NCCL_SUM: int

def get_unique_id() -> bytes: ...

class NcclCommunicator:
    def __init__(self, ndev: int, commId: bytes, rank: int) -> None: ...
    def allReduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None: ...
