/* A load client for benchmarks: HTTP/1.1 keep-alive on loopback, plain or server-sent events, bounded in time.
 *
 *   load PORT MODEL KEY_FILE CONNECTIONS SECONDS WARMUP_SECONDS RATE STREAM
 *
 * RATE 0: every connection asks again as soon as it is answered. RATE > 0: that many requests per second on an open
 * schedule; latency counts from the moment the request was due. STREAM 1: server-sent events; the delay of an event is
 * now minus the CLOCK_MONOTONIC stamp in its id (written by upstream.c). Prints one JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_CAP = 16384, LINE_CAP = 1024, EVENTS = 512 };
typedef enum { IDLE, CONNECTING, SENDING, HEAD, BODY } Stage;
typedef enum { SIZE, DATA, DATA_END, TRAILER } Chunking;

typedef struct {
  int fd;
  Stage stage;
  uint64_t begun;
  size_t sent, head_len, line_len;
  int status, chunked, close_after, seen_first, seen_done;
  long long need, chunk_left;
  Chunking chunking;
  char head[HEAD_CAP], line[LINE_CAP], size[20];
  int size_len;
} Conn;

typedef struct { uint32_t *at; size_t n, cap; } Sample; /* in 100 ns */

static int epoll_fd, connections, streaming, idle_count, *idle, measuring;
static Conn *conns;
static char *request;
static size_t request_len;
static struct sockaddr_in address;
static long done, errors, not_200, undone, chunks;
static Sample latency, first_byte, chunk_delay;
static uint64_t measure_from;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void note(Sample *s, uint64_t ns) {
  if (s->n == s->cap) {
    if (s->cap >= 1u << 24) return;
    s->cap = s->cap ? s->cap * 2 : 4096;
    s->at = realloc(s->at, s->cap * sizeof *s->at);
  }
  s->at[s->n++] = (uint32_t)(ns / 100);
}

static int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static double percentile_ms(Sample *s, double p) {
  return s->n ? s->at[(size_t)(p * (double)(s->n - 1))] / 10000.0 : -1;
}

static void watch(Conn *c, uint32_t events) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void finish(Conn *c, int ok) {
  if (measuring && c->begun >= measure_from) {
    if (!ok) errors++;
    else {
      done++;
      if (c->status != 200) not_200++;
      else if (streaming && !c->seen_done) undone++;
      note(&latency, now_ns() - c->begun);
    }
  }
  if (!ok || c->close_after) { close(c->fd); c->fd = -1; }
  c->stage = IDLE;
  idle[idle_count++] = (int)(c - conns);
}

static void send_request(Conn *c) {
  while (c->sent < request_len) {
    ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN) watch(c, EPOLLIN | EPOLLOUT);
      else finish(c, 0);
      return;
    }
    c->sent += (size_t)n;
  }
  c->stage = HEAD;
  watch(c, EPOLLIN);
}

static void begin(Conn *c, uint64_t due) {
  c->begun = due;
  c->sent = c->head_len = c->line_len = 0;
  c->status = c->close_after = c->seen_first = c->seen_done = c->size_len = 0;
  if (c->fd >= 0) { c->stage = SENDING; send_request(c); return; }
  int one = 1;
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS) { finish(c, 0); return; }
  c->stage = CONNECTING;
  struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static void take_line(Conn *c, uint64_t now) {
  if (c->line_len < 5 || memcmp(c->line, "data:", 5)) return;
  if (memmem(c->line, c->line_len < 16 ? c->line_len : 16, "[DONE]", 6)) { c->seen_done = 1; return; }
  int counts = measuring && now >= measure_from;
  if (counts) chunks++;
  if (!c->seen_first) {
    c->seen_first = 1;
    if (counts && c->begun >= measure_from) note(&first_byte, now - c->begun);
  }
  char *id = memmem(c->line, c->line_len, "chatcmpl-", 9);
  if (id && counts) {
    uint64_t written = strtoull(id + 9, NULL, 10);
    if (written > 1000 && now > written) note(&chunk_delay, now - written);
  }
}

static void take_body(Conn *c, const char *p, size_t n, uint64_t now) {
  while (streaming && n) {
    const char *end = memchr(p, '\n', n);
    size_t piece = end ? (size_t)(end - p) : n, room = LINE_CAP - 1 - c->line_len;
    memcpy(c->line + c->line_len, p, piece < room ? piece : room);
    c->line_len += piece < room ? piece : room;
    if (!end) return;
    c->line[c->line_len] = 0;
    take_line(c, now);
    c->line_len = 0;
    p = end + 1;
    n -= piece + 1;
  }
}

/* 1: the answer is whole, 0: more to come, -1: nonsense */
static int take_chunked(Conn *c, const char *p, size_t n, uint64_t now) {
  while (n) {
    if (c->chunking == DATA) {
      size_t piece = (long long)n > c->chunk_left ? (size_t)c->chunk_left : n;
      take_body(c, p, piece, now);
      c->chunk_left -= (long long)piece;
      p += piece;
      n -= piece;
      if (!c->chunk_left) c->chunking = DATA_END;
      continue;
    }
    char ch = *p++;
    n--;
    if (ch == '\r') continue;
    if (c->chunking == SIZE && ch != '\n') {
      if (c->size_len < 18) c->size[c->size_len++] = ch;
    } else if (c->chunking == SIZE) {
      c->size[c->size_len] = 0;
      c->size_len = 0;
      c->chunk_left = strtoll(c->size, NULL, 16);
      c->chunking = c->chunk_left ? DATA : TRAILER;
    } else if (ch == '\n') {
      if (c->chunking == TRAILER) return 1;
      c->chunking = SIZE;
    }
  }
  return 0;
}

static int take(Conn *c, const char *p, size_t n) {
  uint64_t now = now_ns();
  if (c->stage == HEAD) {
    size_t before = c->head_len, piece = n < HEAD_CAP - 1 - before ? n : HEAD_CAP - 1 - before;
    memcpy(c->head + before, p, piece);
    c->head_len += piece;
    c->head[c->head_len] = 0;
    char *end = memmem(c->head, c->head_len, "\r\n\r\n", 4);
    if (!end) return c->head_len >= HEAD_CAP - 1 ? -1 : 0;
    size_t used = (size_t)(end - c->head) + 4 - before;
    end[2] = 0;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
    c->close_after = strcasestr(c->head, "\r\nconnection: close") != NULL;
    c->need = length ? atoll(length + 17) : -1;
    c->chunking = SIZE;
    c->stage = BODY;
    if (!streaming && measuring && c->begun >= measure_from) note(&first_byte, now - c->begun);
    p += used;
    n -= used;
    if (!c->chunked && c->need == 0) return 1;
  }
  if (c->stage != BODY) return -1;
  if (c->chunked) return take_chunked(c, p, n, now);
  take_body(c, p, n, now);
  if (c->need < 0) return 0;
  c->need -= (long long)n;
  return c->need <= 0;
}

static void receive(Conn *c) {
  static char buffer[1 << 18];
  for (;;) {
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      if (c->stage == IDLE) { close(c->fd); c->fd = -1; }
      else { c->close_after = 1; finish(c, n == 0 && c->stage == BODY && !c->chunked && c->need < 0); }
      return;
    }
    if (c->stage == IDLE) continue;
    int whole = take(c, buffer, (size_t)n);
    if (whole) { finish(c, whole > 0); return; }
    if (n < (ssize_t)sizeof buffer) return;
  }
}

int main(int argc, char **argv) {
  if (argc != 9) {
    fprintf(stderr, "usage: load PORT MODEL KEY_FILE CONNECTIONS SECONDS WARMUP_SECONDS RATE STREAM\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  int port = atoi(argv[1]);
  char key[256] = "none", body[1024];
  FILE *f = fopen(argv[3], "r");
  if (f) { if (!fgets(key, sizeof key, f)) key[0] = 0; fclose(f); key[strcspn(key, "\n")] = 0; }
  connections = atoi(argv[4]);
  double seconds = atof(argv[5]), warmup = atof(argv[6]), rate = atof(argv[7]);
  streaming = atoi(argv[8]);
  if (seconds > 60) seconds = 60;
  int body_len = snprintf(body, sizeof body,
                          "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello, how are you today? I "
                          "would like to hear something about the sea, in three short sentences, please. Thank "
                          "you.\"}],\"stream\":%s,\"max_tokens\":64,\"temperature\":0.5,\"user\":\"bench\"}",
                          argv[2], streaming ? "true" : "false");
  request = malloc(2048);
  request_len = (size_t)snprintf(request, 2048,
                                 "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: "
                                 "application/json\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s",
                                 port, key, body_len, body);
  address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  epoll_fd = epoll_create1(0);
  conns = calloc((size_t)connections, sizeof *conns);
  idle = malloc((size_t)connections * sizeof *idle);
  for (int i = connections - 1; i >= 0; i--) { conns[i].fd = -1; idle[idle_count++] = i; }

  uint64_t start = now_ns(), stop;
  measure_from = start + (uint64_t)(warmup * 1e9);
  stop = measure_from + (uint64_t)(seconds * 1e9);
  double gap = rate > 0 ? 1e9 / rate : 0;
  long scheduled = 0;
  struct epoll_event ready[EVENTS];
  measuring = 1; /* what began before measure_from is not counted */
  for (;;) {
    uint64_t now = now_ns();
    if (now >= stop) break;
    int wait_ms = 100;
    if (rate > 0) {
      uint64_t due;
      while (idle_count && (due = start + (uint64_t)((double)scheduled * gap)) <= now) {
        scheduled++;
        begin(&conns[idle[--idle_count]], due);
      }
      wait_ms = 1;
    } else if (streaming && scheduled < connections) { /* streams begin spread over the first second */
      while (idle_count && scheduled < connections &&
             start + (uint64_t)(1e9 * (double)scheduled / connections) <= now) {
        scheduled++;
        begin(&conns[idle[--idle_count]], now);
      }
      wait_ms = 1;
    } else
      for (int k = idle_count; k > 0 && idle_count; k--) begin(&conns[idle[--idle_count]], now_ns());
    int n = epoll_wait(epoll_fd, ready, EVENTS, wait_ms);
    for (int i = 0; i < n; i++) {
      Conn *c = ready[i].data.ptr;
      if (c->fd < 0) continue;
      if (c->stage == CONNECTING) {
        int error = 0;
        socklen_t len = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
        if (error) { finish(c, 0); continue; }
        c->stage = SENDING;
      }
      if (c->stage == SENDING && ready[i].events & EPOLLOUT) { send_request(c); if (c->fd < 0) continue; }
      if (ready[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) receive(c);
    }
  }
  double took = (double)(now_ns() - measure_from) / 1e9;
  qsort(latency.at, latency.n, sizeof *latency.at, ascending);
  qsort(first_byte.at, first_byte.n, sizeof *first_byte.at, ascending);
  qsort(chunk_delay.at, chunk_delay.n, sizeof *chunk_delay.at, ascending);
  printf("{\"seconds\":%.3f,\"done\":%ld,\"errors\":%ld,\"not_200\":%ld,\"undone\":%ld,\"rps\":%.1f,\"latency_p50_ms\":%.3f,"
         "\"latency_p99_ms\":%.3f,\"ttft_p50_ms\":%.3f,\"ttft_p99_ms\":%.3f,\"chunks\":%ld,\"chunks_per_s\":%.1f,"
         "\"chunk_p50_ms\":%.3f,\"chunk_p99_ms\":%.3f}\n",
         took, done, errors, not_200, undone, (double)done / took, percentile_ms(&latency, .5),
         percentile_ms(&latency, .99), percentile_ms(&first_byte, .5), percentile_ms(&first_byte, .99), chunks,
         (double)chunks / took, percentile_ms(&chunk_delay, .5), percentile_ms(&chunk_delay, .99));
  return 0;
}
