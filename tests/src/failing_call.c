// Runs a program and lets one of the system calls with which it changes something fail.
//
//     failing-call LOG NUMBER ERRNO PROGRAM [ARGUMENT]...
//
// Writes a line "call path" to LOG for each such call of the program and its threads, but not of
// the programs that it starts. The call with this number, counted from 1, is not made and fails with
// ERRNO. 0 lets none fail. strace cannot do this: it counts the calls of each thread.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

// The argument that names the changed file: a path, or a file descriptor.
enum kind { NOTHING, FD, PATH };

static const struct {
    const char *name;
    int number;
    enum kind kind;
    int argument;
} calls[] = {
    {"write", SYS_write, FD, 0},
    {"pwrite64", SYS_pwrite64, FD, 0},
    {"writev", SYS_writev, FD, 0},
    {"openat", SYS_openat, PATH, 1},
    {"rename", SYS_rename, PATH, 1},
    {"renameat", SYS_renameat, PATH, 3},
    {"renameat2", SYS_renameat2, PATH, 3},
    {"mkdir", SYS_mkdir, PATH, 0},
    {"mkdirat", SYS_mkdirat, PATH, 1},
    {"rmdir", SYS_rmdir, PATH, 0},
    {"link", SYS_link, PATH, 1},
    {"linkat", SYS_linkat, PATH, 3},
    {"symlink", SYS_symlink, PATH, 1},
    {"symlinkat", SYS_symlinkat, PATH, 2},
    {"unlink", SYS_unlink, PATH, 0},
    {"unlinkat", SYS_unlinkat, PATH, 1},
    {"copy_file_range", SYS_copy_file_range, FD, 2},
    {"sendfile", SYS_sendfile, FD, 0},
    {"truncate", SYS_truncate, PATH, 0},
    {"ftruncate", SYS_ftruncate, FD, 0},
    {"fsync", SYS_fsync, FD, 0},
    {"fdatasync", SYS_fdatasync, FD, 0},
    {"chmod", SYS_chmod, PATH, 0},
    {"fchmod", SYS_fchmod, FD, 0},
    {"fchmodat", SYS_fchmodat, PATH, 1},
    {"chown", SYS_chown, PATH, 0},
    {"fchown", SYS_fchown, FD, 0},
    {"fchownat", SYS_fchownat, PATH, 1},
    {"utimensat", SYS_utimensat, FD, 0},
    {"mknodat", SYS_mknodat, PATH, 1},
    {"clone", SYS_clone, NOTHING, 0},
    {"clone3", SYS_clone3, NOTHING, 0},
    {"vfork", SYS_vfork, NOTHING, 0},
};
#define CALLS (sizeof calls / sizeof *calls)

static void die(const char *what)
{
    perror(what);
    exit(99);
}

// Stops at the calls of the table, at openat only if it opens a file for writing.
static void install_filter(void)
{
    struct sock_filter filter[CALLS + 9];
    size_t length = 0;
#define ADD(...) filter[length++] = (struct sock_filter)__VA_ARGS__
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])));
    ADD(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR | O_CREAT, CALLS + 2, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    for (size_t i = 0; i < CALLS; i++)
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, CALLS - i, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE));
    struct sock_fprog program = {.len = length, .filter = filter};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        die("seccomp");
}

static unsigned long argument(const struct user_regs_struct *regs, int number)
{
    const unsigned long all[] = {regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9};
    return all[number];
}

// Stores the path of an argument in `path`. Its rest is zero.
static void read_path(pid_t id, enum kind kind, unsigned long value, char *path)
{
    memset(path, 0, PATH_MAX + 1);
    if (kind == FD) {
        char link[64];
        snprintf(link, sizeof link, "/proc/%d/fd/%d", id, (int)value);
        readlink(link, path, PATH_MAX);
    } else if (kind == PATH) {
        struct iovec here = {path, PATH_MAX}, there = {(void *)value, PATH_MAX};
        // A read across the end of a mapping fails as a whole.
        while (there.iov_len && process_vm_readv(id, &here, 1, &there, 1, 0) < 0)
            there.iov_len /= 2;
    }
}

static int is_program(pid_t id, const char *program)
{
    char link[64], path[PATH_MAX + 1] = "";
    snprintf(link, sizeof link, "/proc/%d/exe", id);
    readlink(link, path, PATH_MAX);
    return !strcmp(path, program);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 98;
    FILE *log = fopen(argv[1], "we");
    long wanted = atol(argv[2]), error = atol(argv[3]), count = 0;
    char *program = realpath(argv[4], NULL), path[PATH_MAX + 1];
    if (!log || !program)
        die(argv[4]);
    pid_t main_id = fork();
    if (main_id < 0)
        die("fork");
    if (!main_id) {
        ptrace(PTRACE_TRACEME);
        raise(SIGSTOP);
        install_filter();
        execv(argv[4], argv + 4);
        die(argv[4]);
    }
    int status;
    waitpid(main_id, &status, 0);
    if (ptrace(PTRACE_SETOPTIONS, main_id, 0,
               PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                   PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC))
        die("ptrace");
    ptrace(PTRACE_CONT, main_id, 0, 0);
    for (int exit_code = 99;;) {
        pid_t id = waitpid(-1, &status, __WALL);
        if (id < 0) {
            fclose(log);
            return exit_code;
        }
        if (!WIFSTOPPED(status)) {
            if (id == main_id)
                exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP && is_program(id, program)) {
            struct user_regs_struct regs;
            ptrace(PTRACE_GETREGS, id, 0, &regs);
            for (size_t i = 0; i < CALLS; i++) {
                if (calls[i].number != (int)regs.orig_rax)
                    continue;
                read_path(id, calls[i].kind, argument(&regs, calls[i].argument), path);
                fprintf(log, "%s %s\n", calls[i].name, path);
                if (++count == wanted) {
                    regs.orig_rax = -1;
                    regs.rax = -error;
                    ptrace(PTRACE_SETREGS, id, 0, &regs);
                }
            }
        }
        // New threads and processes begin with a SIGSTOP.
        if (event || signal == SIGSTOP || signal == SIGTRAP)
            signal = 0;
        ptrace(PTRACE_CONT, id, 0, signal);
    }
}
