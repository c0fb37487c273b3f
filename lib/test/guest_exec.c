/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of exec and spawn: whatever environment is made, the preload is in it. */
#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "guest.h"

static const char *self = "/proc/self/exe";
static char *arguments[] = {"guest", "printenv", NULL};
static char other[600]; /* LD_PRELOAD=... of the guest's own */
static char *few[] = {"MARK=1", other, "BOXER_IPC=wrong", NULL};

/* The child's side: exits 0 when the monitor is in here and works. */
void guest_printenv(void) {
    char name[65];
    const char *preload = getenv("LD_PRELOAD"), *library = getenv("BOXER_LIB");
    CHECK(preload && library && strncmp(preload, library, strlen(library)) == 0);
    CHECK(getenv("BOXER_IPC") && strcmp(getenv("BOXER_IPC"), "wrong") != 0);
    CHECK(getenv("BOXER_NETWORK") && strcmp(getenv("BOXER_NETWORK"), "shop") == 0);
    CHECK(gethostname(name, sizeof name) == 0 && strcmp(name, "front") == 0);
    if (getenv("MARK") && getenv("MARK")[0] == '1')
        CHECK(strstr(preload, "/other.so") > strstr(preload, "/libboxer.so:"));
}

static void check_child(pid_t pid) {
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
}

enum way {
    EXECVE,
    EXECVE_NULL,
    EXECV,
    EXECVP,
    EXECVPE,
    EXECL,
    EXECLP,
    EXECLE,
    FEXECVE,
    BY_NUMBER,
    BY_NUMBER_AT,
    WAYS
};

static void run(enum way way) {
    char *nothing[] = {NULL};
    switch (way) {
        case EXECVE:
            execve(self, arguments, few);
            break;
        case EXECVE_NULL:
            execve(self, arguments, NULL);
            break;
        case EXECV:
            execv(self, arguments);
            break;
        case EXECVP:
            execvp(self, arguments);
            break;
        case EXECVPE:
            execvpe(self, arguments, nothing);
            break;
        case EXECL:
            execl(self, "guest", "printenv", (char *)NULL);
            break;
        case EXECLP:
            execlp(self, "guest", "printenv", (char *)NULL);
            break;
        case EXECLE:
            execle(self, "guest", "printenv", (char *)NULL, few);
            break;
        case FEXECVE:
            fexecve(open(self, O_RDONLY), arguments, few);
            break;
        case BY_NUMBER:
            syscall(SYS_execve, self, arguments, few);
            break;
        case BY_NUMBER_AT:
            syscall(SYS_execveat, AT_FDCWD, self, arguments, few, 0);
            break;
        default:
            break;
    }
    _exit(9);
}

static void check_spawn(void) {
    pid_t pid;
    char *nothing[] = {NULL};
    CHECK(posix_spawn(&pid, self, NULL, NULL, arguments, few) == 0);
    check_child(pid);
    CHECK(posix_spawnp(&pid, self, NULL, NULL, arguments, nothing) == 0);
    check_child(pid);
    CHECK(posix_spawn(&pid, "/nonexistent", NULL, NULL, arguments, few) == ENOENT);
}

/* More than fits a stack; and long values. */
static void check_large(void) {
    static char *large[9001], text[9000][12], preload[20000];
    memset(preload, 'x', sizeof preload - 1);
    memcpy(preload, "MARK=2", 6);
    for (int i = 0; i < 9000; i++) {
        snprintf(text[i], sizeof text[i], "V%d=1", i);
        large[i] = text[i];
    }
    large[8999] = preload;
    pid_t pid = fork();
    if (pid == 0) {
        execve(self, arguments, large);
        _exit(9);
    }
    check_child(pid);
}

static void check_way(enum way way) {
    pid_t pid = fork();
    if (pid == 0)
        run(way);
    check_child(pid);
    pid = vfork();
    if (pid == 0)
        run(way);
    check_child(pid);
}

void guest_exec(void) {
    char **volatile bad = (char **)8;
    snprintf(other, sizeof other, "LD_PRELOAD=%s", getenv("TEST_OTHER"));
    for (enum way way = EXECVE; way < WAYS; way++)
        check_way(way);
    check_spawn();
    check_large();
    CHECK_ERRNO(execve("/nonexistent", arguments, few), ENOENT);
    CHECK_ERRNO(execve(self, arguments, bad), EFAULT);
    CHECK_ERRNO(execvp("no-such-program-anywhere", arguments), ENOENT);
    clearenv(); /* the copy made at the start serves */
    pid_t pid = fork();
    if (pid == 0)
        run(EXECV);
    check_child(pid);
}

/* The shells of system and popen, in an environment with nothing in it. */
void guest_shell(void) {
    static const char *const look =
        "case $LD_PRELOAD in \"$BOXER_LIB\"*) [ \"$BOXER_NETWORK\" = shop ] && exit 3;; esac; exit "
        "4";
    FILE *f;
    char *name = getenv("BOXER_LIB");
    CHECK(name && WEXITSTATUS(system(look)) == 3);
    CHECK(unsetenv("LD_PRELOAD") == 0 && WEXITSTATUS(system(look)) == 3);
    CHECK(!getenv("LD_PRELOAD")); /* for the guest it stays as it made it */
    clearenv();
    for (int i = 0; i < 3; i++)
        CHECK(WEXITSTATUS(system(look)) == 3);
    CHECK(!getenv("BOXER_LIB"));
    CHECK(setenv("MARK", "3", 1) == 0);
    f = popen(look, "r");
    CHECK(f && WEXITSTATUS(pclose(f)) == 3);
    CHECK(system(NULL) != 0 && !popen("true", "nonsense"));
    CHECK(!getenv("LD_PRELOAD") && strcmp(getenv("MARK"), "3") == 0);
}
