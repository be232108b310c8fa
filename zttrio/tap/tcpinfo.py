"""``struct tcp_info`` as Linux fills it in, from what our connections know; the rest is zero."""

from __future__ import annotations

import struct
from math import inf
from typing import TYPE_CHECKING

from zttrio.stack.tcp import state as states

from . import rpc

if TYPE_CHECKING:
    from zttrio.stack.tcp.connection import TcpConnection

__all__ = ["pack_info"]

# 8 octets of state, 24 numbers of 32 bits, then the fields that later kernels have added.
_INFO = struct.Struct("=8B24I4Q6I4Q2I2Q4I")

_ESTABLISHED, _LISTEN, _CLOSE, _SYN_SENT = 1, 10, 7, 2
_STATES = {
    states.ESTABLISHED: _ESTABLISHED,
    states.SYN_SENT: _SYN_SENT,
    states.SYN_RECEIVED: 3,
    states.FIN_WAIT_1: 4,
    states.FIN_WAIT_2: 5,
    states.TIME_WAIT: 6,
    states.CLOSED: _CLOSE,
    states.CLOSE_WAIT: 8,
    states.LAST_ACK: 9,
    states.CLOSING: 11,
}
_TIMESTAMPS, _SACK, _WINDOW_SCALE = 1, 2, 4  # TCPI_OPT_*
_UNLIMITED = 0x7FFF_FFFF  # TCP_INFINITE_SSTHRESH
_NO_PACING = 0xFFFF_FFFF_FFFF_FFFF


def _microseconds(seconds: float) -> int:
    return 0xFFFF_FFFF if seconds == inf else min(int(seconds * 1e6), 0xFFFF_FFFF)


def _segments(octets: int, mss: int) -> int:
    return -(-octets // mss)


def pack_info(state: int, tcp: TcpConnection | None, now: float) -> bytes:
    """The structure for a socket in *state* (one of rpc.STATE_*) with the connection *tcp*."""
    if tcp is None:
        number = _LISTEN if state == rpc.STATE_LISTENING else _CLOSE
        return struct.pack("=B", number).ljust(_INFO.size, b"\0")
    mss = tcp.mss
    rtt = tcp.rtt
    flight = tcp.snd_nxt - tcp.snd_una
    acked = max(0, tcp.snd_una - tcp.iss - 1)
    received = max(0, tcp.rcv_nxt - tcp.irs - 1)
    ssthresh = tcp.congestion.ssthresh
    idle = max(0, int((now - tcp.last_sent_at) * 1000))
    heard = max(0, int((now - tcp.received_at) * 1000)) if tcp.received_at else 0
    data = max(0, int((now - tcp.data_at) * 1000)) if tcp.data_at > 0 else 0
    return _INFO.pack(
        _STATES.get(tcp.state, _CLOSE),
        tcp.loss_state and tcp.loss_state + 2,  # TCP_CA_Recovery, TCP_CA_Loss
        min(tcp.retries, 255),
        0,  # probes
        min(rtt.backoff, 255),
        tcp.ts_ok * _TIMESTAMPS | tcp.sack_ok * _SACK | tcp.scale_ok * _WINDOW_SCALE,
        (tcp.snd_scale & 15) | (tcp.rcv_scale & 15) << 4,
        0,  # flags
        _microseconds(rtt.rto),
        40_000,  # ato
        mss,
        tcp.rcv_mss,
        _segments(flight, mss),
        _segments(tcp.board.sacked, mss),
        _segments(tcp.board.lost, mss),
        0,  # retrans
        0,  # fackets
        idle,
        0,  # last_ack_sent, which Linux does not tell either
        data,
        heard,
        tcp.path_mtu,
        tcp.rcv_buffer,
        _microseconds(rtt.srtt),
        _microseconds(rtt.rttvar),
        _UNLIMITED if ssthresh >= _UNLIMITED else _segments(int(ssthresh), mss),
        max(1, int(tcp.congestion.cwnd) // mss),
        tcp.adv_mss,
        3,  # reordering
        0,  # rcv_rtt
        tcp.rcv_buffer,
        0,  # total_retrans
        _NO_PACING,
        _NO_PACING,
        acked,
        received,
        0,  # segs_out
        0,  # segs_in
        max(0, tcp.write_end - tcp.snd_nxt),
        _microseconds(rtt.min_rtt),
        0,  # data_segs_in
        0,  # data_segs_out
        0,  # delivery_rate
        0,  # busy_time
        0,  # rwnd_limited
        0,  # sndbuf_limited
        0,  # delivered
        0,  # delivered_ce
        max(0, tcp.snd_nxt - tcp.iss - 1),
        0,  # bytes_retrans
        0,  # dsack_dups
        0,  # reord_seen
        0,  # rcv_ooopack
        tcp.snd_wnd,
    )
