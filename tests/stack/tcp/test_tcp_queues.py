"""The send queue, the receive queue and the scoreboard against simple models of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from zttrio.stack.tcp.receivequeue import MAX_PIECES, ReceiveQueue
from zttrio.stack.tcp.scoreboard import IN_FLIGHT, LOST, SACKED, Scoreboard
from zttrio.stack.tcp.sendqueue import SendQueue
from zttrio.stack.tcp.seq import is_newer, unwrap

BASE = (1 << 32) - 50  # so that every model crosses the wrap


@given(st.integers(-(1 << 40), 1 << 40), st.integers(-(1 << 31), (1 << 31) - 1))
def test_unwrapping_finds_the_number_that_was_wrapped(near: int, distance: int) -> None:
    number = near + distance
    assert unwrap(number & 0xFFFF_FFFF, near) == number


@given(st.integers(0, 0xFFFF_FFFF), st.integers(1, 0x7FFF_FFFF))
def test_a_timestamp_is_newer_on_its_half_of_the_circle(stamp: int, step: int) -> None:
    later = (stamp + step) & 0xFFFF_FFFF
    assert is_newer(later, stamp)
    assert not is_newer(stamp, later)
    assert not is_newer(stamp, stamp)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_send_queue_gives_back_what_was_put_in(data: st.DataObject) -> None:
    queue = SendQueue(BASE)
    model = bytearray()
    start = 0
    for step in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(("append", "cut", "acknowledge")))
        if action == "append":
            chunk = bytes([step]) * data.draw(st.sampled_from((0, 1, 3, 500, 1024, 3000)))
            kind = data.draw(st.sampled_from((bytes, bytearray, memoryview)))
            given_in = kind(chunk)
            queue.append(given_in)
            if isinstance(given_in, memoryview):
                given_in.release()  # as its owner may at any time
            model += chunk
        elif action == "cut" and len(model) > start:
            at = data.draw(st.integers(start, len(model) - 1))
            size = data.draw(st.integers(1, len(model) - at))
            assert bytes(queue.cut(BASE + at, size)) == bytes(model[at : at + size])
            part = data.draw(st.integers(1, 2000))
            pieces = queue.cut_run(BASE + at, size, part)
            assert b"".join(pieces) == bytes(model[at : at + size])
            assert {len(piece) for piece in pieces[:-1]} <= {part}
            assert 0 < len(pieces[-1]) <= part
        else:
            start = data.draw(st.integers(start, len(model)))
            queue.acknowledge(BASE + start)
        assert len(queue) == len(model) - start
    queue.clear()
    assert len(queue) == 0


def test_a_chunk_is_kept_by_reference_and_cut_as_a_view() -> None:
    queue = SendQueue(0)
    chunk = bytes(5000)
    queue.append(chunk)
    assert queue.cut(0, 5000) is chunk
    part = queue.cut(10, 2000)
    assert isinstance(part, memoryview)
    assert part.obj is chunk


def test_of_a_run_only_what_crosses_chunks_is_joined() -> None:
    queue = SendQueue(0)
    chunks = [bytes(5000), bytes(5000)]
    for chunk in chunks:
        queue.append(chunk)
    pieces = queue.cut_run(0, 9000, 3000)
    assert [piece.obj for piece in pieces if isinstance(piece, memoryview)] == chunks
    assert [len(piece) for piece in pieces] == [3000, 3000, 3000]
    assert isinstance(pieces[1], bytes)


def test_many_small_writes_make_few_chunks() -> None:
    queue = SendQueue(0)
    for _ in range(10_000):
        queue.append(b"x")
    assert len(queue._chunks) <= 10


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_receive_queue_puts_any_order_right(data: st.DataObject) -> None:
    stream = bytes(range(256)) * 3
    queue = ReceiveQueue()
    arrived: set[int] = set()
    nxt = BASE
    got = bytearray()
    for _ in range(data.draw(st.integers(1, 40))):
        start = data.draw(st.integers(0, len(stream) - 1))
        size = data.draw(st.integers(1, min(200, len(stream) - start)))
        seq = BASE + start
        piece: bytes | memoryview = stream[start : start + size]
        if data.draw(st.booleans()):
            piece = memoryview(piece)
        arrived |= set(range(start, start + size))
        if seq + size <= nxt:
            continue
        if seq < nxt:
            piece, seq = piece[nxt - seq :], nxt
        if seq == nxt:
            if queue.is_ahead():
                queue.insert(seq, piece, is_next=True)
                nxt = queue.advance(seq)
            else:
                queue.append(piece)
                nxt = seq + len(piece)
        else:
            assert queue.insert(seq, piece)
        ahead = {n for n in arrived if BASE + n >= nxt}
        assert queue.ahead == len(ahead)
        blocks = queue.sack_blocks(4)
        for left, right in blocks:
            assert set(range(left - BASE, right - BASE)) <= arrived
        if data.draw(st.booleans()):
            got += queue.take(data.draw(st.integers(1, 1000)))
    assert nxt - BASE == next((n for n in range(len(stream)) if n not in arrived), len(stream))
    assert queue.peek(1 << 20) == stream[len(got) : nxt - BASE]
    buffer = bytearray(100)
    size = queue.take_into(buffer)
    got += buffer[:size]
    while queue.size:
        got += queue.take(700)
    assert bytes(got) == stream[: nxt - BASE]


def test_many_small_segments_make_few_chunks() -> None:
    queue = ReceiveQueue()
    for _ in range(10_000):
        queue.append(b"x")
    assert len(queue._chunks) <= 10
    assert queue.size == 10_000


def test_small_data_does_not_keep_the_frame_that_it_came_in() -> None:
    queue = ReceiveQueue()
    frame = bytes(65_000)
    queue.append(memoryview(frame)[:10])
    queue.insert(100, memoryview(frame)[:10])
    assert isinstance(queue._chunks[0], bytes)
    assert isinstance(queue._pieces[100], bytes)


def test_pieces_are_what_was_received_and_no_copy_of_it() -> None:
    queue = ReceiveQueue()
    frames = [bytes([number]) * 2000 for number in range(3)]
    for frame in frames:
        queue.append(frame)
    first, second = queue.take_pieces(3000)
    assert first is frames[0]
    assert isinstance(second, memoryview)
    assert second.obj is frames[1]
    assert queue.size == 3000
    assert b"".join([first, second, *queue.take_pieces(10_000)]) == b"".join(frames)
    assert (queue.size, queue.take_pieces(1)) == (0, [])


def test_what_is_next_finds_room_although_nothing_else_does() -> None:
    queue = ReceiveQueue()
    for number in range(MAX_PIECES):
        assert queue.insert(10 + 2 * number, b"x")
    assert not queue.insert(5, b"y")
    assert queue.insert(0, b"0123456789", is_next=True)
    assert queue.advance(0) == 11


def test_discarding_forgets_everything() -> None:
    queue = ReceiveQueue()
    queue.append(b"abc")
    queue.insert(10, b"x")
    queue.insert(10, b"x")
    queue.discard()
    assert (queue.size, queue.ahead, queue.duplicate, queue.is_ahead()) == (0, 0, None, False)
    assert queue.sack_blocks(4) == []
    assert queue.take(5) == b""


def _check(board: Scoreboard, una: int, nxt: int) -> None:
    at = una
    totals = [0, 0, 0]
    again = 0
    for piece in board.pieces:
        assert piece.start == at
        assert piece.end > piece.start
        at = piece.end
        totals[piece.state] += piece.end - piece.start
        if piece.state == IN_FLIGHT and piece.is_retransmitted:
            again += piece.end - piece.start
    assert at == nxt
    assert (totals[LOST], totals[SACKED]) == (board.lost, board.sacked)
    assert again == board.retransmitted_out
    assert board.sacked_segments == sum(
        piece.segments() for piece in board.pieces if piece.state == SACKED
    )
    lost = board.next_lost()
    first = next((piece for piece in board.pieces if piece.state == LOST), None)
    assert lost is first


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_scoreboard_keeps_its_totals_whatever_is_acknowledged(data: st.DataObject) -> None:
    board = Scoreboard()
    una = nxt = BASE
    model: dict[int, int] = {}  # octet -> state
    now = 0.0
    for _ in range(data.draw(st.integers(1, 40))):
        now += 1.0
        action = data.draw(
            st.sampled_from(
                ("add", "add", "ack", "sack", "lose", "resend", "head", "tail", "renege", "undo")
            )
        )
        board.begin_ack(data.draw(st.sampled_from((float("inf"), now - 3.0))))
        if action == "add":
            size = data.draw(st.integers(1, 50))
            board.add(nxt, nxt + size, 10, now)
            model.update(dict.fromkeys(range(nxt, nxt + size), IN_FLIGHT))
            nxt += size
        elif nxt == una:
            continue
        elif action == "ack":
            ack = data.draw(st.integers(una + 1, nxt))
            news = sum(1 for octet in range(una, ack) if model.pop(octet) != SACKED)
            assert board.acknowledge(ack) == news
            una = ack
        elif action == "sack":
            left = data.draw(st.integers(una, nxt - 1))
            right = data.draw(st.integers(left + 1, nxt))
            news = sum(1 for octet in range(left, right) if model[octet] != SACKED)
            assert board.sack(left, right) == news
            model.update(dict.fromkeys(range(left, right), SACKED))
        elif action == "lose":
            for piece in board.sent_before(now - data.draw(st.integers(0, 5)), nxt):
                board.mark_lost(piece)
                model.update(dict.fromkeys(range(piece.start, piece.end), LOST))
        elif action == "head":
            size = data.draw(st.integers(1, 30))
            end = board.pieces[0].end
            if board.mark_head_lost(size):
                end = min(end, una + size)
                model.update(dict.fromkeys(range(una, end), LOST))
        elif action == "tail" and board.pieces[-1].state == IN_FLIGHT:
            board.resend_tail(min(board.pieces[-1].end - board.pieces[-1].start, 7), 10, now)
        elif action == "resend":
            first = board.next_lost()
            if first is not None:
                size = data.draw(st.integers(1, first.end - first.start))
                start = first.start
                board.resend(first, size, 10, now)
                model.update(dict.fromkeys(range(start, start + size), IN_FLIGHT))
        elif action == "renege":
            board.forget_sacks()
            model = {o: IN_FLIGHT if s == SACKED else s for o, s in model.items()}
        elif action == "undo":
            board.unmark_lost()
            model = {o: IN_FLIGHT if s == LOST else s for o, s in model.items()}
        _check(board, una, nxt)
        for piece in board.pieces:
            states = {model[octet] for octet in (piece.start, piece.end - 1)}
            assert states == {piece.state}


def test_sacked_neighbours_become_one_piece() -> None:
    board = Scoreboard()
    for number in range(1000):
        board.add(number * 10, number * 10 + 10, 10, float(number))
    for number in range(1, 1000):
        board.sack(number * 10, number * 10 + 10)
    assert len(board.pieces) == 2
    assert board.sacked == 9990
    assert board.sacked_segments == 999
