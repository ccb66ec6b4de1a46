/* floor LAYER DIR COUNT: what the kernel alone takes for what a keeper is asked for. Prints a line `floor_ms MILLISECONDS` COUNT times, one container after
 * another: groups, a clone into new namespaces (network included), overlay, /proc, /sys and /dev, pivot_root, exec of LAYER's `true`; measured from the
 * first call until the program runs. No protocol, no log, no limits, no rights taken away, nothing masked, no answer to an error but the end.
 *
 * DIR is an empty folder, which stays empty. Needs root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(call) do { if ((call) < 0) { fprintf(stderr, "floor: %s: %s\n", #call, strerror(errno)); exit(1); } } while (0)

/* The hierarchies a keeper needs without limits on v1; on v2 there is one. */
static const char *const GROUPS[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"};
static char groups[5][256];
static int group_count, unified;

static void find_groups(void) {
    unified = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0;
    for (int i = unified ? 4 : 0; i < (unified ? 5 : 4); i++)
        if (access(GROUPS[i], F_OK) == 0 && !(i == 3 && access(GROUPS[2], F_OK) == 0))
            snprintf(groups[group_count++], sizeof groups[0], "%s/mote-floor-%d", GROUPS[i], getpid());
}

static void child(const char *layer, const char *dir) {
    char text[4096], root[2048];
    for (int i = 0; i < group_count && !unified; i++) {
        snprintf(text, sizeof text, "%s/tasks", groups[i]);
        int file;
        CHECK(file = open(text, O_WRONLY | O_CLOEXEC));
        CHECK(write(file, "0", 1));
    }
    CHECK(unshare(CLONE_NEWCGROUP));
    CHECK(setsid());
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    snprintf(root, sizeof root, "%s/root", dir);
    snprintf(text, sizeof text, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,volatile", layer, dir, dir);
    CHECK(mount("overlay", root, "overlay", 0, text));
    CHECK(chdir(root));
    mkdir("proc", 0755), mkdir("sys", 0755), mkdir("dev", 0755);
    CHECK(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    CHECK(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL));
    CHECK(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
    CHECK(execl("/bin/true", "true", (char *)NULL));
}

static double one(const char *layer, const char *dir) {
    struct timespec began, ran;
    struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET, .exit_signal = SIGCHLD};
    int ends[2];
    char byte;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int i = 0; i < group_count; i++)
        CHECK(mkdir(groups[i], 0755));
    if (unified) {
        int group;
        CHECK(group = open(groups[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        args.flags |= CLONE_INTO_CGROUP, args.cgroup = (uint64_t)group;
    }
    CHECK(pipe2(ends, O_CLOEXEC));
    long pid = syscall(SYS_clone3, &args, sizeof args);
    CHECK(pid);
    if (pid == 0)
        child(layer, dir), _exit(1);
    close(ends[1]);
    CHECK(read(ends[0], &byte, 1)); /* closed by the exec */
    clock_gettime(CLOCK_MONOTONIC, &ran);
    close(ends[0]);
    if (unified)
        close((int)args.cgroup);
    int status;
    CHECK(waitpid((pid_t)pid, &status, 0));
    for (int i = 0; i < group_count; i++)
        while (rmdir(groups[i]) && errno == EBUSY)
            ;
    if (status)
        fprintf(stderr, "floor: the program ended with %#x\n", status), exit(1);
    return (double)(ran.tv_sec - began.tv_sec) * 1e3 + (double)(ran.tv_nsec - began.tv_nsec) / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return fputs("usage: floor LAYER DIR COUNT\n", stderr), 2;
    find_groups();
    for (int i = 0; i < atoi(argv[3]); i++) {
        static const char *const FOLDERS[] = {"upper", "root", "work"};
        char own[1024], path[2048], command[2048];
        snprintf(own, sizeof own, "%s/%d", argv[2], i);
        CHECK(mkdir(own, 0755));
        for (int f = 0; f < 3; f++) {
            snprintf(path, sizeof path, "%s/%s", own, FOLDERS[f]);
            CHECK(mkdir(path, 0755));
        }
        printf("floor_ms %.3f\n", one(argv[1], own));
        snprintf(command, sizeof command, "rm -rf '%s'", own);
        if (system(command))
            return 1;
    }
    return 0;
}
