/* A fixed upstream for benchmarks: speaks OpenAI's chat completions over HTTP/1.1, and is never the bottleneck.
 *
 *   upstream PORT CHUNKS DELAY_US
 *
 * A plain request gets a 530-octet answer at once. A streamed one gets CHUNKS events, DELAY_US apart; the number in
 * each event's id is CLOCK_MONOTONIC in nanoseconds at the moment of writing, so that a client on this machine can
 * tell how long the event took. One thread, epoll, keep-alive, loopback only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
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

enum { IN_CAP = 1 << 18, OUT_CAP = 1 << 16, EVENTS = 512 };

typedef struct Conn {
  int fd;
  char *in;
  size_t in_len;
  char out[OUT_CAP];
  size_t out_len, out_off;
  int streaming, left;     /* events still to send; the last is [DONE] */
  uint64_t due;            /* when the next event is to leave */
  struct Conn *next;       /* in the queue of streams, ordered by due (one fixed delay: first in, first due) */
} Conn;

static int epoll_fd, chunks = 64;
static uint64_t delay_ns;
static Conn *queue_head, *queue_tail;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void enqueue(Conn *c) {
  c->next = NULL;
  if (queue_tail) queue_tail->next = c;
  else queue_head = c;
  queue_tail = c;
}

static void forget(Conn *c) {
  Conn **at = &queue_head, *before = NULL;
  while (*at && *at != c) { before = *at; at = &(*at)->next; }
  if (*at) { *at = c->next; if (queue_tail == c) queue_tail = before; }
  close(c->fd);
  free(c->in);
  free(c);
}

/* 1: all written, 0: the socket is full, -1: gone */
static int flush_out(Conn *c) {
  while (c->out_off < c->out_len) {
    ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) {
      struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
      epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
      return n < 0 ? 0 : -1;
    }
    c->out_off += (size_t)n;
  }
  c->out_off = c->out_len = 0;
  return 1;
}

static void put(Conn *c, const char *text, size_t n) {
  if (c->out_len + n > OUT_CAP) return; /* a reader that slow has lost its events; the client counts them */
  memcpy(c->out + c->out_len, text, n);
  c->out_len += n;
}

static void put_event(Conn *c) {
  char event[700], chunk[760];
  int n;
  if (c->left > 1)
    n = snprintf(event, sizeof event,
                 "data: {\"id\":\"chatcmpl-%llu\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":"
                 "\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%03dx\"},\"logprobs\":null,"
                 "\"finish_reason\":%s}]}\n\n",
                 (unsigned long long)now_ns(), c->left % 1000, c->left == 2 ? "\"stop\"" : "null");
  else
    n = snprintf(event, sizeof event, "data: [DONE]\n\n");
  n = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n%s", n, event, c->left == 1 ? "0\r\n\r\n" : "");
  put(c, chunk, (size_t)n);
  c->left--;
}

static void respond(Conn *c, const char *head, const char *body) {
  static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1,"
                               "\"owned_by\":\"bench\"}],\"status\":\"ok\",\"model_path\":\"mock\"}";
  static const char plain_head[] = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":"
                                   "\"mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
  static const char plain_tail[] = "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,"
                                   "\"completion_tokens\":12,\"total_tokens\":21}}";
  char line[256], text[1024];
  if (strncmp(head, "POST", 4) != 0) {
    put(c, line, (size_t)snprintf(line, sizeof line, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                  "content-length: %zu\r\n\r\n", sizeof models - 1));
    put(c, models, sizeof models - 1);
    return;
  }
  const char *flag = strstr(body, "\"stream\"");
  if (flag) { flag += 8; while (*flag == ' ' || *flag == ':') flag++; }
  if (!flag || *flag != 't') {
    char filler[201];
    memset(filler, 'y', 200);
    filler[200] = 0;
    int n = snprintf(text, sizeof text, "%s%s%s", plain_head, filler, plain_tail);
    put(c, line, (size_t)snprintf(line, sizeof line, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                  "content-length: %d\r\n\r\n", n));
    put(c, text, (size_t)n);
    return;
  }
  static const char sse[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                            "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
  put(c, sse, sizeof sse - 1);
  c->streaming = 1;
  c->left = chunks + 1;
  c->due = now_ns() + delay_ns;
  put_event(c);
  enqueue(c);
}

/* Take whole requests out of the input. -1: not HTTP. */
static int take_requests(Conn *c) {
  while (!c->streaming && c->in_len) {
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end) return c->in_len >= IN_CAP - 1 ? -1 : 0;
    size_t head_len = (size_t)(end - c->in) + 4, body_len = 0, used;
    *end = 0;
    char *field = strcasestr(c->in, "\r\ncontent-length:");
    int chunked = strcasestr(c->in, "\r\ntransfer-encoding: chunked") != NULL;
    *end = '\r';
    char *body = c->in + head_len;
    size_t have = c->in_len - head_len;
    if (chunked) {
      c->in[c->in_len] = 0;
      char *last = memmem(body, have, "0\r\n\r\n", 5);
      if (!last) return c->in_len >= IN_CAP - 1 ? -1 : 0;
      body_len = (size_t)(last - body) + 5;
    } else if (field) {
      body_len = strtoul(field + 17, NULL, 10);
      if (body_len > have) return head_len + body_len >= IN_CAP - 1 ? -1 : 0;
    }
    used = head_len + body_len;
    char keep = c->in[used];
    c->in[used] = 0;
    respond(c, c->in, body);
    c->in[used] = keep;
    memmove(c->in, c->in + used, c->in_len - used);
    c->in_len -= used;
  }
  return 0;
}

static void run_streams(void) {
  uint64_t now = now_ns();
  while (queue_head && queue_head->due <= now) {
    Conn *c = queue_head;
    queue_head = c->next;
    if (!queue_head) queue_tail = NULL;
    put_event(c);
    if (c->left == 1) put_event(c); /* [DONE] leaves with the last token, as engines do */
    if (c->left > 0) { c->due += delay_ns; enqueue(c); }
    else c->streaming = 0;
    if (flush_out(c) < 0 || (!c->streaming && take_requests(c) < 0)) forget(c);
    else if (!c->streaming) flush_out(c);
  }
}

int main(int argc, char **argv) {
  if (argc != 4) { fprintf(stderr, "usage: upstream PORT CHUNKS DELAY_US\n"); return 2; }
  chunks = atoi(argv[2]);
  delay_ns = strtoull(argv[3], NULL, 10) * 1000;
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) { perror("upstream"); return 1; }
  epoll_fd = epoll_create1(0);
  struct epoll_event self = {.events = EPOLLIN, .data.ptr = NULL}, ready[EVENTS];
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &self);
  for (;;) {
    int wait_ms = -1;
    if (queue_head) {
      uint64_t now = now_ns();
      wait_ms = queue_head->due <= now ? 0 : (int)((queue_head->due - now) / 1000000) + 1;
    }
    int n = epoll_wait(epoll_fd, ready, EVENTS, wait_ms);
    for (int i = 0; i < n; i++) {
      Conn *c = ready[i].data.ptr;
      if (!c) {
        int fd;
        while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
          c = calloc(1, sizeof *c);
          c->fd = fd;
          c->in = malloc(IN_CAP);
          struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
          epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
        }
        continue;
      }
      if (ready[i].events & EPOLLOUT && flush_out(c) == 1) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
      }
      if (ready[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        ssize_t got = recv(c->fd, c->in + c->in_len, IN_CAP - 1 - c->in_len, MSG_DONTWAIT);
        if (got <= 0) { forget(c); continue; }
        c->in_len += (size_t)got;
        if (take_requests(c) < 0 || flush_out(c) < 0) forget(c);
      }
    }
    run_streams();
  }
}
