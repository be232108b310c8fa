/* Loops that Python is too slow for: checksums, cutting super-segments, merging segments, and
 * writing frames.  No protocol state and no policy: what may be merged is said by zttrio/kernels.py's
 * twins, which do the same and are tested against these octet by octet.
 *
 * Plain C without Python's API; zttrio/kernels.py loads it with ctypes.  Every function is given
 * lengths that have been checked by its caller, where it says so, and checks the rest itself.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define ABI 2

enum { IP_AT = 14, MAX_FRAMES = 256, MAX_PACKET = 65535 };
enum { FIN = 1, PSH = 8, ACK = 16, CWR = 128 };
enum { COMPLETE = 0, VERIFIED = 1, PARTIAL = 2 }; /* zttrio.header.frame */

/* Sums.  Words are added in the machine's byte order, which gives the sum in that order
 * (RFC 1071 section 2 (B)); only fields are swapped. */

static inline uint64_t add_up(const uint8_t *p, size_t n)
{
    uint64_t sum = 0;
    for (; n >= 4; n -= 4, p += 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        sum += word;
    }
    if (n >= 2) {
        uint16_t half;
        memcpy(&half, p, 2);
        sum += half;
        p += 2;
        n -= 2;
    }
    if (n) {
        uint16_t half = 0;
        memcpy(&half, p, 1);
        sum += half;
    }
    return sum;
}

static uint64_t sum_anywhere(const uint8_t *p, size_t n) { return add_up(p, n); }

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *p, size_t n)
{
    return add_up(p, n);
}
#endif

static uint64_t (*sum)(const uint8_t *, size_t) = sum_anywhere;

static uint16_t fold(uint64_t total)
{
    while (total >> 16)
        total = (total & 0xFFFF) + (total >> 16);
    return (uint16_t)total;
}

static uint16_t swap(uint16_t value) /* between the machine's order and the network's */
{
    uint8_t octets[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    uint16_t other;
    memcpy(&other, octets, 2);
    return other;
}

static void put16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value)
{
    put16(p, value >> 16);
    put16(p + 2, value);
}

static uint32_t get16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t get32(const uint8_t *p) { return get16(p) << 16 | get16(p + 2); }
static void put_raw(uint8_t *p, uint16_t value) { memcpy(p, &value, 2); }

/* Choose what this processor can do; returns the version of this interface. */
EXPORT int zttrio_start(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        sum = sum_avx2;
#endif
    return ABI;
}

/* As zttrio.header.checksum.sum_of, folded. */
EXPORT uint32_t zttrio_sum(const uint8_t *data, size_t length)
{
    return swap(fold(sum(data, length)));
}

/* The sum of the pseudo-header of `length` transport octets, in the machine's order. */
static uint64_t pseudo_sum(const uint8_t *ip, uint32_t protocol, size_t length)
{
    uint64_t total = (ip[0] >> 4 == 4) ? sum_anywhere(ip + 12, 8) : sum_anywhere(ip + 8, 32);
    return total + swap((uint16_t)protocol) + swap((uint16_t)length);
}

/* Cut the TCP super-segment `frame` into plain frames, one behind the other in `out`.
 *
 * The caller has made sure that 14 < tcp_at < data_at <= length, that size > 0, that the IP header
 * is whole, and that `out` holds everything.  Returns how many there are; all but the last have
 * data_at + size octets. */
EXPORT uint32_t zttrio_split(
    const uint8_t *frame, size_t length, size_t tcp_at, size_t data_at, size_t size, uint8_t *out)
{
    const int is_ipv4 = frame[IP_AT] >> 4 == 4;
    const uint32_t seq = get32(frame + tcp_at + 4);
    const uint32_t identification = get16(frame + IP_AT + 4);
    const uint8_t flags = frame[tcp_at + 13];
    const size_t total = length - data_at;
    uint32_t count = 0;
    size_t at = 0;
    do {
        const size_t piece = total - at < size ? total - at : size;
        uint8_t own = flags;
        memcpy(out, frame, data_at);
        memcpy(out + data_at, frame + data_at + at, piece);
        if (at)
            own &= (uint8_t)~CWR;
        if (at + piece < total)
            own &= (uint8_t) ~(FIN | PSH);
        if (is_ipv4) {
            put16(out + IP_AT + 2, (uint32_t)(data_at - IP_AT + piece));
            put16(out + IP_AT + 4, identification + count);
            put16(out + IP_AT + 10, 0);
            put_raw(out + IP_AT + 10, (uint16_t)~fold(sum_anywhere(out + IP_AT, tcp_at - IP_AT)));
        } else {
            put16(out + IP_AT + 4, (uint32_t)(data_at - IP_AT - 40 + piece));
        }
        put32(out + tcp_at + 4, seq + (uint32_t)at);
        out[tcp_at + 13] = own;
        put16(out + tcp_at + 16, 0);
        const size_t covered = data_at - tcp_at + piece;
        const uint64_t check = pseudo_sum(out + IP_AT, 6, covered) + sum(out + tcp_at, covered);
        put_raw(out + tcp_at + 16, (uint16_t)~fold(check));
        out += data_at + piece;
        at += piece;
        count++;
    } while (at < total);
    return count;
}

/* Write `length` octets of `frames` to a device, `step` octets at a time (the last may be fewer).
 *
 * The caller has made sure that step > 0.  Returns how many frames were written; `*error` is what
 * kept the next one, 0 if there is none. */
EXPORT uint32_t zttrio_write(
    int device, const uint8_t *frames, size_t length, size_t step, int32_t *error)
{
    uint32_t count = 0;
    *error = 0;
    for (size_t at = 0; at < length; at += step) {
        const size_t size = length - at < step ? length - at : step;
        ssize_t written;
        do
            written = write(device, frames + at, size);
        while (written < 0 && errno == EINTR);
        if (written < 0) {
            *error = errno;
            break;
        }
        count++;
    }
    return count;
}

/* Merging. */

struct group {
    uint32_t first, last, gso_size, next_seq, payload;
    uint16_t tcp_at, data_at;
    uint8_t is_open, state, has_push;
};

struct segment {
    uint16_t tcp_at, data_at, end; /* 0: no TCP segment with right checksums */
    uint8_t state;
};

static struct segment look_at(const uint8_t *frame, uint32_t length)
{
    struct segment found = {0, 0, 0, COMPLETE};
    const uint8_t *ip = frame + IP_AT;
    uint32_t start, end, protocol;
    if (length < IP_AT + 40)
        return found;
    if (get16(frame + 12) == 0x0800 && ip[0] == 0x45) {
        start = IP_AT + 20;
        end = IP_AT + get16(ip + 2);
        protocol = ip[9];
        if (get16(ip + 6) & 0x3FFF || fold(sum_anywhere(ip, 20)) != 0xFFFF)
            return found;
    } else if (get16(frame + 12) == 0x86DD && ip[0] >> 4 == 6) {
        start = IP_AT + 40;
        end = start + get16(ip + 4);
        protocol = ip[6];
    } else {
        return found;
    }
    if (protocol != 6 || end > length || end < start + 20)
        return found;
    const uint32_t data_at = start + (frame[start + 12] >> 4) * 4;
    if (data_at < start + 20 || data_at > end)
        return found;
    if (fold(pseudo_sum(ip, 6, end - start) + sum(frame + start, end - start)) != 0xFFFF)
        return found;
    found.tcp_at = (uint16_t)start;
    found.data_at = (uint16_t)data_at;
    found.end = (uint16_t)end;
    found.state = VERIFIED;
    return found;
}

/* Have two segments of one flow the same Ethernet header, traffic class, TTL and the like? */
static int same_way(const uint8_t *a, const uint8_t *b, size_t tcp)
{
    if (memcmp(a, b, IP_AT))
        return 0;
    if (tcp == IP_AT + 20) /* traffic class; flags and TTL */
        return a[IP_AT + 1] == b[IP_AT + 1] && !memcmp(a + IP_AT + 6, b + IP_AT + 6, 3);
    /* traffic class and flow label; hop limit */
    return !memcmp(a + IP_AT, b + IP_AT, 4) && a[IP_AT + 7] == b[IP_AT + 7];
}

/* Do two segments differ in nothing but what counts up, lengths and checksums? */
static int fits(const uint8_t *a, const uint8_t *b, const struct group *g, const struct segment *s)
{
    const size_t tcp = s->tcp_at;
    return g->data_at == s->data_at && same_way(a, b, tcp) &&
           !memcmp(a + tcp + 8, b + tcp + 8, 5) && /* ACK, length of header */
           !memcmp(a + tcp + 14, b + tcp + 14, 2) && /* window */
           !memcmp(a + tcp + 18, b + tcp + 18, s->data_at - tcp - 18);
}

/* Has a segment no options, or just timestamps where everybody puts them? */
static int is_plain(const uint8_t *frame, const struct segment *s)
{
    static const uint8_t timestamps[4] = {1, 1, 8, 10};
    const size_t options = s->tcp_at + 20u;
    return s->data_at == options ||
           (s->data_at == options + 12 && !memcmp(frame + options, timestamps, 4));
}

/* Does the pure ACK b say all that the pure ACK a said, and acknowledge more?  Both are plain. */
static int outdates(
    const uint8_t *a, const uint8_t *b, const struct group *g, const struct segment *s)
{
    const size_t tcp = s->tcp_at;
    const uint32_t more = get32(b + tcp + 8) - get32(a + tcp + 8);
    if (g->data_at != s->data_at || !same_way(a, b, tcp) || memcmp(a + tcp + 4, b + tcp + 4, 4))
        return 0;
    if (s->data_at != tcp + 20 && get32(b + tcp + 24) - get32(a + tcp + 24) > INT32_MAX)
        return 0; /* its timestamp is older */
    return more && more <= INT32_MAX;
}

static int same_flow(const uint8_t *a, const uint8_t *b, const struct group *g, size_t tcp)
{
    const size_t from = tcp == IP_AT + 20 ? IP_AT + 12 : IP_AT + 8;
    return g->tcp_at == tcp && !memcmp(a + from, b + from, tcp + 4 - from);
}

/* Merge what came in together: `count` frames (at most 256), `stride` octets apart in `in`.
 *
 * `out` holds the sum of `lengths`.  Each row of `table` is five numbers: offset in `out`, length,
 * where the payload begins (0 if that was not looked for), gso_size, checksum state.  Returns the
 * number of rows. */
EXPORT uint32_t zttrio_merge(
    const uint8_t *in, size_t stride, const uint32_t *lengths, uint32_t count, uint8_t *out,
    uint32_t *table)
{
    struct group groups[MAX_FRAMES];
    struct segment segments[MAX_FRAMES];
    uint32_t next[MAX_FRAMES];
    uint32_t made = 0;
    if (count > MAX_FRAMES)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *frame = in + i * stride;
        const struct segment s = segments[i] = look_at(frame, lengths[i]);
        const uint32_t payload = s.end - s.data_at;
        uint8_t flags = 0;
        next[i] = i;
        if (s.tcp_at) {
            flags = frame[s.tcp_at + 13];
            struct group *found = NULL;
            for (uint32_t j = made; j-- > 0 && !found;)
                if (groups[j].is_open && same_flow(in + groups[j].first * stride, frame,
                                                   &groups[j], s.tcp_at))
                    found = &groups[j];
            if (found) {
                if (!payload && !found->payload && flags == ACK && is_plain(frame, &s) &&
                    outdates(in + found->first * stride, frame, found, &s)) {
                    found->first = found->last = i;
                    continue;
                }
                if (payload && (flags & ~PSH) == ACK && payload <= found->gso_size &&
                    get32(frame + s.tcp_at + 4) == found->next_seq &&
                    s.data_at - IP_AT + found->payload + payload <= MAX_PACKET &&
                    fits(in + found->first * stride, frame, found, &s)) {
                    next[found->last] = i;
                    found->last = i;
                    found->payload += payload;
                    found->next_seq += payload;
                    if (flags & PSH)
                        found->has_push = 1;
                    if (flags & PSH || payload < found->gso_size)
                        found->is_open = 0;
                    continue;
                }
                found->is_open = 0;
            }
        }
        struct group *g = &groups[made++];
        memset(g, 0, sizeof *g);
        g->first = g->last = i;
        g->state = s.state;
        g->tcp_at = s.tcp_at;
        g->data_at = s.data_at;
        g->gso_size = g->payload = payload;
        g->is_open = s.tcp_at && flags == ACK && (payload || is_plain(frame, &s));
        if (g->is_open)
            g->next_seq = get32(frame + s.tcp_at + 4) + payload;
    }
    uint32_t offset = 0;
    for (uint32_t j = 0; j < made; j++, table += 5) {
        const struct group *g = &groups[j];
        const uint8_t *frame = in + g->first * stride;
        uint8_t *to = out + offset;
        table[0] = offset;
        if (g->first == g->last) {
            const uint32_t length = lengths[g->first];
            memcpy(to, frame, length);
            table[1] = length;
            table[2] = segments[g->first].end == length ? g->data_at : 0; /* unless padded */
            table[3] = 0;
            table[4] = g->state;
        } else {
            const uint32_t tcp = g->tcp_at;
            size_t at = g->data_at;
            memcpy(to, frame, at);
            for (uint32_t i = g->first;; i = next[i]) {
                const struct segment *s = &segments[i];
                memcpy(to + at, in + i * stride + s->data_at, s->end - s->data_at);
                at += s->end - s->data_at;
                if (i == g->last)
                    break;
            }
            if (to[IP_AT] >> 4 == 4) {
                put16(to + IP_AT + 2, (uint32_t)(at - IP_AT));
                put16(to + IP_AT + 10, 0);
                put_raw(to + IP_AT + 10, (uint16_t)~fold(sum_anywhere(to + IP_AT, 20)));
            } else {
                put16(to + IP_AT + 4, (uint32_t)(at - IP_AT - 40));
            }
            if (g->has_push)
                to[tcp + 13] |= PSH;
            put_raw(to + tcp + 16, fold(pseudo_sum(to + IP_AT, 6, at - tcp)));
            table[1] = (uint32_t)at;
            table[2] = g->data_at;
            table[3] = g->gso_size;
            table[4] = PARTIAL;
        }
        offset += table[1];
    }
    return made;
}
