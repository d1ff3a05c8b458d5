/*
 * The job of the campaign: small, since it is started a million times.
 *
 *   job run ADDRESS LOCK ATTEMPT FAMILY MILLISECONDS CODE
 *
 * tells the witness at the abstract socket ADDRESS that it begins, with its token, and ends with CODE after so many
 * milliseconds. Whatever of its family lives has the connection, and answers when it is asked; that the last of
 * them is gone is told by the kernel. FAMILY is letters:
 *
 *   i  it ignores SIGTERM
 *   d  it leaves a daemon behind: setsid(2), forked twice, deaf to SIGTERM
 *   c  that daemon has closed every descriptor but the connection, the lock's too
 *
 *   job init
 *
 * is the first process of a host's pid namespace: it mounts /proc, says so on its output, and reaps until it is killed.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* No process of a campaign lives longer, should everything that ends it be gone. */
#define LIFE 300000

static int witness = -1;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

/* Answers the witness for so long, or, if it is waited for, until its word to go. */
static void answer(long long milliseconds, int wait_for_go)
{
    long long until = now() + milliseconds, left;
    while ((left = until - now()) > 0) {
        struct pollfd fd = { witness, POLLIN, 0 };
        char text[64];
        ssize_t size;
        if (poll(&fd, 1, (int)left) < 1)
            continue;
        size = recv(witness, text, sizeof text, MSG_DONTWAIT);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            continue; /* another of the family was faster */
        if (size <= 0)
            _exit(99); /* the campaign is over */
        if (text[0] == 'P') {
            text[0] = 'O';
            send(witness, text, (size_t)size, MSG_NOSIGNAL);
        } else if (wait_for_go) {
            return;
        }
    }
}

/*
 * Comes back when the daemon is one. It does not listen before the answer is closed, or its starter is gone: the word to
 * go is not for it.
 */
static int leave_a_daemon(int closes)
{
    int ready[2], heard[2];
    char byte = 0;
    if (pipe(ready) != 0 || pipe(heard) != 0)
        _exit(98);
    if (fork() == 0) {
        int fd;
        setsid();
        if (fork() != 0)
            _exit(0);
        signal(SIGTERM, SIG_IGN);
        close(heard[1]);
        for (fd = 0; closes && fd < 256; fd++)
            if (fd != witness && fd != ready[1] && fd != heard[0])
                close(fd);
        if (write(ready[1], &byte, 1) != 1)
            _exit(98);
        close(ready[1]);
        if (read(heard[0], &byte, 1) != 0)
            _exit(98);
        answer(LIFE, 0);
        _exit(0);
    }
    close(ready[1]);
    close(heard[0]);
    wait(NULL);
    if (read(ready[0], &byte, 1) != 1)
        _exit(98);
    close(ready[0]);
    return heard[1];
}

static int run(char **argv)
{
    const char *address = argv[2], *lock = argv[3], *attempt = argv[4], *family = argv[5];
    const char *token = getenv("JOBLOCK_TOKEN"), *id = getenv("JOBLOCK_RUN_ID");
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    char text[256];
    int size, heard = -1;

    /* the name of an abstract socket begins with a NUL */
    strncpy(name.sun_path + 1, address, sizeof name.sun_path - 2);
    witness = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (connect(witness, (struct sockaddr *)&name,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address))) != 0)
        return 97;
    if (strchr(family, 'i'))
        signal(SIGTERM, SIG_IGN);
    if (strchr(family, 'd'))
        heard = leave_a_daemon(strchr(family, 'c') != NULL);
    size = snprintf(text, sizeof text, "B %s %s %s %s", lock, token ? token : "0", id ? id : "-", attempt);
    if (send(witness, text, (size_t)size, MSG_NOSIGNAL) != size)
        return 96;
    answer(LIFE, 1);
    close(heard);
    answer(atoi(argv[6]), 0);
    /* the last word of user space, but not if a daemon lives on */
    if (!strchr(family, 'd'))
        send(witness, "Y", 1, MSG_NOSIGNAL);
    return atoi(argv[7]);
}

static int init(void)
{
    /* nor does it outlive the host's thread */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (mount("proc", "/proc", "proc", 0, NULL) != 0)
        return 1;
    if (write(1, "\n", 1) != 1)
        return 1;
    for (;;)
        if (wait(NULL) < 0)
            poll(NULL, 0, 100);
}

int main(int argc, char **argv)
{
    if (argc == 8 && strcmp(argv[1], "run") == 0)
        return run(argv);
    if (argc == 2 && strcmp(argv[1], "init") == 0)
        return init();
    fputs("job: see the top of its source\n", stderr);
    return 95;
}
