"""What a connection knows of itself, as a frozen row: TCP_INFO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from .tcb import Tcb

__all__ = ["TcpInfo"]

_NAMES = ("open", "recovery", "loss")


@attrs.frozen(kw_only=True)
class TcpInfo:
    """A snapshot.  Times are seconds, sizes are octets.

    Attributes:
        state: as RFC 9293 spells it.
        recovery: ``open``, ``recovery`` or ``loss``.
        has_timestamps: RFC 7323 timestamps are in use.
        has_sack: RFC 2018 is in use.
        has_ecn: RFC 3168 is in use.
        snd_scale: shift of the windows that the peer announces.
        rcv_scale: shift of the windows that we announce.
        mss: payload of a full segment of ours.
        rcv_mss: our guess at the same of the peer's.
        path_mtu: what we take the path's to be.
        srtt: smoothed round-trip time, 0 if there was no sample.
        rttvar: its deviation.
        min_rtt: the shortest of the last minutes, inf if there was no sample.
        rto: the retransmission timeout, back-off included.
        retries: timeouts or probes since the peer was heard of last.
        cwnd: congestion window.
        ssthresh: slow-start threshold, 2**62 before the first loss.
        in_flight: octets in the network, as far as we know.
        unacknowledged: octets sent and not acknowledged.
        sacked: of these, what has arrived all the same.
        lost: of these, what is lost and has not been sent again.
        unsent: octets that the program has given us and that were not sent.
        resent: octets that were sent more than once, since the beginning.
        acknowledged: octets that the peer has acknowledged, since the beginning.
        received: octets received in order, since the beginning.
        unread: octets that the program has not read.
        out_of_order: octets that wait for others before them.
        snd_wnd: what the peer's window takes.
        rcv_wnd: what we have promised to take.
        send_buffer: octets that may wait to be acknowledged, at present.
        receive_buffer: octets that may wait to be read, at present.
        reordering: the path has been seen to reorder.
    """

    state: str
    recovery: str
    has_timestamps: bool
    has_sack: bool
    has_ecn: bool
    snd_scale: int
    rcv_scale: int
    mss: int
    rcv_mss: int
    path_mtu: int
    srtt: float
    rttvar: float
    min_rtt: float
    rto: float
    retries: int
    cwnd: int
    ssthresh: int
    in_flight: int
    unacknowledged: int
    sacked: int
    lost: int
    unsent: int
    resent: int
    acknowledged: int
    received: int
    unread: int
    out_of_order: int
    snd_wnd: int
    rcv_wnd: int
    send_buffer: int
    receive_buffer: int
    reordering: bool

    @classmethod
    def of(cls, tcb: Tcb) -> TcpInfo:
        """The row for *tcb* as it is now."""
        queue = tcb.receive_queue
        return cls(
            state=tcb.state,
            recovery=_NAMES[tcb.loss_state],
            has_timestamps=tcb.ts_ok,
            has_sack=tcb.sack_ok,
            has_ecn=tcb.ecn_ok,
            snd_scale=tcb.snd_scale,
            rcv_scale=tcb.rcv_scale,
            mss=tcb.mss,
            rcv_mss=tcb.rcv_mss,
            path_mtu=tcb.path_mtu,
            srtt=tcb.rtt.srtt,
            rttvar=tcb.rtt.rttvar,
            min_rtt=tcb.rtt.min_rtt,
            rto=tcb.rtt.timeout(),
            retries=tcb.retries,
            cwnd=tcb.congestion.cwnd,
            ssthresh=tcb.congestion.ssthresh,
            in_flight=tcb.pipe(),
            unacknowledged=tcb.snd_nxt - tcb.snd_una,
            sacked=tcb.board.sacked,
            lost=tcb.board.lost,
            unsent=max(tcb.write_end - tcb.snd_nxt, 0),
            resent=tcb.resent,
            acknowledged=max(min(tcb.snd_una, tcb.write_end) - tcb.iss - 1, 0),
            received=max(tcb.rcv_nxt - tcb.irs - 1 - tcb.is_fin_received, 0),
            unread=0 if queue is None else queue.size,
            out_of_order=0 if queue is None else queue.ahead,
            snd_wnd=tcb.snd_wnd,
            rcv_wnd=max(tcb.rcv_adv - tcb.rcv_nxt, 0),
            send_buffer=tcb.send_buffer,
            receive_buffer=tcb.rcv_buffer,
            reordering=tcb.is_reordering,
        )
