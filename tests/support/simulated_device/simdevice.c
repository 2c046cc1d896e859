/* Devices with a known load, and what their sensors show of it.
 *
 * What it publishes is a pure function of the clock (CLOCK_MONOTONIC), of an append-only load log
 * per device and of an append-only list of faults, so the true energy is the integral of the log.
 * twin.py does the same sums in the same order on a virtual clock; change both together. Compile
 * with -ffp-contract=off, or the two differ in the last digit.
 *
 * SIMULATED_NVML names the configuration: lines of "key value", first for all, then for each
 * device after a line "device 0", "device 1", ... The keys are the tables below.
 * The load log has lines "monotonic_seconds watts". The list of faults has lines
 * "device from_s until_s kind [arguments]", where device is a number or *, and kind is
 *   fail FUNCTION CODE    that function, "field:N" or * returns an NVML error
 *   zero counter|power    it reads 0
 *   stuck                 counter and power stand still
 *   reset                 the counter starts again from 0 at from_s
 *   stall                 reads begun in the interval return at its end
 *   process PID MIB       a process computes on the device
 *   events BITS           clock-event (throttle) reasons
 */
#define _GNU_SOURCE
#include "simdevice.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

Simulation sim;
pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
static double frozen_s = -1.0;

/* Tests stop the clock with this; a negative time lets it run again. */
API void simnvmlSetClock(double t_s) { frozen_s = t_s; }

double now_s(void) {
    if (frozen_s >= 0.0) return frozen_s;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void sleep_s(double seconds) {
    if (seconds <= 0.0 || frozen_s >= 0.0) return;
    struct timespec t = {(time_t)seconds, (long)(fmod(seconds, 1.0) * 1e9)};
    while (nanosleep(&t, &t) && errno == EINTR) continue;
}

/* ---- random numbers by hashing, the same for the same index ------------------------------ */

enum { JITTER = 1, NOISE = 2 };

static double uniform(const Device *d, int stream, long index) {
    uint64_t start = (uint64_t)d->seed * 16 + (uint64_t)stream;
    uint64_t x = (uint64_t)index * 0x9E3779B97F4A7C15ULL + start;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    x ^= x >> 31;
    return (double)(x >> 11) * 0x1p-53;
}

static double normal(const Device *d, long index) {
    double sum = 0.0;
    for (int part = 0; part < 4; part++) sum += uniform(d, NOISE, 4 * index + part);
    return (sum - 2.0) * sqrt(3.0);
}

/* ---- files that only grow ---------------------------------------------------------------- */

static void read_new_lines(Log *log, void (*take)(void *, const char *), void *whom) {
    struct stat status;
    char text[65537];
    if (!log->path[0]) return;
    if (!log->fd) log->fd = open(log->path, O_RDONLY | O_CLOEXEC);
    if (log->fd < 0) log->fd = 0; /* not written yet */
    while (log->fd && !fstat(log->fd, &status) && status.st_size > log->read_to) {
        ssize_t got = pread(log->fd, text, sizeof text - 1, log->read_to);
        if (got <= 0) return;
        text[got] = '\0';
        char *line = text, *end;
        while ((end = strchr(line, '\n'))) {
            *end = '\0';
            take(whom, line);
            line = end + 1;
        }
        if (line == text) return; /* the writer is in the middle of a line */
        log->read_to += line - text;
    }
}

static double *grown(double *numbers, size_t room) {
    numbers = realloc(numbers, room * sizeof *numbers);
    if (!numbers) abort();
    return numbers;
}

/* ---- load: power over time and its integral ---------------------------------------------- */

static void add_piece(Device *d, double start_s, double level_w) {
    Load *l = &d->load;
    if (l->count == l->room) {
        l->room = l->room ? 2 * l->room : 256;
        l->start_s = grown(l->start_s, l->room);
        l->level_w = grown(l->level_w, l->room);
        l->joules = grown(l->joules, l->room);
        l->followed_w = grown(l->followed_w, l->room);
    }
    size_t i = l->count++;
    l->joules[i] = 0.0;
    l->followed_w[i] = level_w;
    if (i) {
        /* A line older than its predecessor counts from that one on: history is not rewritten. */
        start_s = fmax(start_s, l->start_s[i - 1]);
        double width_s = start_s - l->start_s[i - 1], before_w = l->level_w[i - 1];
        l->joules[i] = l->joules[i - 1] + before_w * width_s;
        if (d->rise_s > 0.0)
            l->followed_w[i] =
                before_w + (l->followed_w[i - 1] - before_w) * exp(-width_s / d->rise_s);
    }
    l->start_s[i] = start_s;
    l->level_w[i] = level_w;
}

static void take_load_line(void *device, const char *line) {
    double start_s, level_w;
    if (sscanf(line, "%lf %lf", &start_s, &level_w) == 2) add_piece(device, start_s, level_w);
}

static size_t piece_at(const Load *l, double t_s) {
    size_t low = 0, high = l->count; /* the last piece that has started; the first one before all */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (l->start_s[middle] <= t_s) low = middle;
        else high = middle;
    }
    return low;
}

static double load_w(const Device *d, double t_s) {
    return d->load.level_w[piece_at(&d->load, t_s)];
}

static double integral_j(const Device *d, double t_s) {
    size_t i = piece_at(&d->load, t_s);
    return d->load.joules[i] + d->load.level_w[i] * (t_s - d->load.start_s[i]);
}

/* The integral of what the sensor follows: the load, or its first-order response s, where
 * s' = (p - s) / r makes the integral of s that of p, less r (s - s0). */
static double sensed_j(const Device *d, double t_s) {
    double joules = integral_j(d, t_s);
    if (d->rise_s == 0.0) return joules;
    size_t i = piece_at(&d->load, t_s);
    double since_s = fmax(t_s - d->load.start_s[i], 0.0), level_w = d->load.level_w[i];
    double followed_w = level_w + (d->load.followed_w[i] - level_w) * exp(-since_s / d->rise_s);
    return joules - d->rise_s * (followed_w - d->load.level_w[0]);
}

/* ---- ticks, counter and power ------------------------------------------------------------ */

static double tick_s(const Device *d, long tick, double period_s, double phase_s) {
    double jitter = 2.0 * uniform(d, JITTER, tick) - 1.0;
    return phase_s + (double)tick * period_s + d->tick_jitter_s * jitter;
}

static long tick_at(const Device *d, double t_s, double period_s, double phase_s) {
    long nominal = (long)floor((t_s - phase_s) / period_s);
    if (tick_s(d, nominal + 1, period_s, phase_s) <= t_s) return nominal + 1;
    return tick_s(d, nominal, period_s, phase_s) > t_s ? nominal - 1 : nominal;
}

static long counter_tick(const Device *d, double t_s) {
    return tick_at(d, t_s, d->counter_period_s, d->counter_phase_s);
}

static double counter_tick_s(const Device *d, long tick) {
    return tick_s(d, tick, d->counter_period_s, d->counter_phase_s);
}

static double part_time_j(const Device *d, long tick) {
    double end_s = counter_tick_s(d, tick), width_s = end_s - counter_tick_s(d, tick - 1);
    double looked_s = d->part_time * width_s, seen_s = end_s - d->lag_s;
    double seen_j = sensed_j(d, seen_s) - sensed_j(d, seen_s - looked_s);
    return (d->gain * (seen_j / looked_s) + d->offset_w) * width_s;
}

static double counted_j(Device *d, long first, long tick) {
    if (d->part_time == 1.0) {
        double from_s = counter_tick_s(d, first), to_s = counter_tick_s(d, tick);
        double seen_j = sensed_j(d, to_s - d->lag_s) - sensed_j(d, from_s - d->lag_s);
        return d->gain * seen_j + d->offset_w * (to_s - from_s);
    }
    size_t wanted = (size_t)(tick - first);
    if (!d->counted) {
        d->counted_j = grown(d->counted_j, d->counted_room = 1024);
        d->counted_j[d->counted++] = 0.0;
    }
    if (wanted < d->counted) return d->counted_j[wanted];
    double total_j = d->counted_j[d->counted - 1], settled_s = now_s() - 1.0;
    for (long k = first + (long)d->counted; k <= tick; k++) {
        total_j += part_time_j(d, k);
        /* Only totals whose load can no longer come late are kept. */
        if (counter_tick_s(d, k) > settled_s || (long)d->counted != k - first) continue;
        if (d->counted == d->counted_room)
            d->counted_j = grown(d->counted_j, d->counted_room *= 2);
        d->counted_j[d->counted++] = total_j;
    }
    return total_j;
}

static double counter_mj(Device *d, double t_s) {
    long first = counter_tick(d, d->epoch_s), tick = counter_tick(d, t_s);
    if (tick < first) tick = first;
    return d->start_mj + rint(1000.0 * (d->counter_gain * counted_j(d, first, tick)));
}

static double mean_mw(const Device *d, long tick, double window_s) {
    double seen_s = tick_s(d, tick, d->power_period_s, d->power_phase_s) - d->lag_s;
    double mean_w = (sensed_j(d, seen_s) - sensed_j(d, seen_s - window_s)) / window_s;
    double noise_w = d->noise_w * normal(d, tick);
    return rint(1000.0 * fmax(d->gain * mean_w + d->offset_w + noise_w, 0.0));
}

/* ---- faults ------------------------------------------------------------------------------ */

static void take_fault_line(void *unused, const char *line) {
    Fault f = {.device = -1};
    char device[16], more[96] = "";
    (void)unused;
    if (sim.fault_count == MAX_FAULTS) return;
    int fields = sscanf(line, "%15s %lf %lf %15s %95s %95s", device, &f.from_s, &f.until_s, f.kind,
                        f.name, more);
    if (fields < 4) return;
    if (device[0] != '*') f.device = atoi(device);
    f.number = strtod(more, NULL);
    sim.faults[sim.fault_count++] = f;
}

int number_of(const Device *d) { return (int)((d->parent ? d->parent : d) - sim.devices); }

/* Walks the faults of a kind that hold for a device now; start with *i = 0. */
const Fault *next_fault(const Device *d, const char *kind, double t_s, size_t *i) {
    while (*i < sim.fault_count) {
        const Fault *f = &sim.faults[(*i)++];
        int concerns = f->device < 0 || (d && f->device == number_of(d));
        if (concerns && !strcmp(f->kind, kind) && f->from_s <= t_s && t_s < f->until_s) return f;
    }
    return NULL;
}

/* A name stands for all versions of its function. */
static int names(const char *name, const char *function) {
    size_t length = strlen(name);
    if (!strcmp(name, "*")) return 1;
    if (strncmp(name, function, length)) return 0;
    return !function[length] || !strncmp(function + length, "_v", 2);
}

static int failure(const Device *d, const char *function) {
    const Fault *f;
    double t_s = now_s();
    for (size_t i = 0; (f = next_fault(d, "fail", t_s, &i));)
        if (names(f->name, function)) return (int)f->number;
    return OK;
}

int failure_now(const Device *d, const char *function) {
    pthread_mutex_lock(&sim_lock);
    read_new_lines(&sim.faults_log, take_fault_line, NULL);
    int code = failure(d, function);
    pthread_mutex_unlock(&sim_lock);
    return code;
}

double stalled_for_s(const Device *d) {
    size_t i = 0;
    double t_s = now_s();
    const Fault *f = next_fault(d, "stall", t_s, &i);
    return f ? f->until_s - t_s : 0.0;
}

static int reads_zero(const Device *d, const char *what) {
    const Fault *f;
    for (size_t i = 0; (f = next_fault(d, "zero", now_s(), &i));)
        if (!strcmp(f->name, what)) return 1;
    return 0;
}

static unsigned long long events(const Device *d, double t_s) {
    const Fault *f;
    unsigned long long bits = 0;
    for (size_t i = 0; (f = next_fault(d, "events", t_s, &i));) bits |= strtoull(f->name, NULL, 0);
    return bits;
}

/* When the sensor last moved: now, unless it is stuck. */
static double sensor_time_s(const Device *d) {
    size_t i = 0;
    double t_s = now_s();
    const Fault *f = next_fault(d, "stuck", t_s, &i);
    return f ? f->from_s : t_s;
}

static double last_reset_s(const Device *d, double t_s) {
    double reset_s = d->persistence_mode ? -INFINITY : sim.first_client_s;
    for (size_t i = 0; i < sim.fault_count; i++) {
        const Fault *f = &sim.faults[i];
        int concerns = f->device < 0 || f->device == number_of(d);
        if (concerns && !strcmp(f->kind, "reset") && f->from_s <= t_s)
            reset_s = fmax(reset_s, f->from_s);
    }
    return reset_s;
}

/* ---- what a read shows ------------------------------------------------------------------- */

double shown_counter_mj(Device *d) {
    pthread_mutex_lock(&sim_lock);
    read_new_lines(&d->log, take_load_line, d);
    double t_s = sensor_time_s(d), reset_s = last_reset_s(d, t_s);
    long tick = counter_tick(d, t_s);
    Held *held = &d->held_counter;
    if (!held->is_set || held->tick != tick) *held = (Held){tick, counter_mj(d, t_s), 1};
    double shown = held->value;
    if (reset_s > d->epoch_s) shown -= counter_mj(d, reset_s);
    if (reads_zero(d, "counter")) shown = 0.0;
    pthread_mutex_unlock(&sim_lock);
    return shown;
}

double shown_mw(Device *d, int averaged) {
    pthread_mutex_lock(&sim_lock);
    read_new_lines(&d->log, take_load_line, d);
    long tick = tick_at(d, sensor_time_s(d), d->power_period_s, d->power_phase_s);
    Held *held = averaged ? &d->held_average : &d->held_instant;
    if (!held->is_set || held->tick != tick)
        *held = (Held){tick, mean_mw(d, tick, averaged ? 1.0 : d->averaging_window_s), 1};
    double shown = reads_zero(d, "power") ? 0.0 : held->value;
    pthread_mutex_unlock(&sim_lock);
    return shown;
}

State state(Device *d) {
    pthread_mutex_lock(&sim_lock);
    read_new_lines(&d->log, take_load_line, d);
    double t_s = now_s();
    State s = {.load_w = load_w(d, t_s), .events = events(d, t_s)};
    s.recent_w = (integral_j(d, t_s) - integral_j(d, t_s - 10.0)) / 10.0;
    s.busy = s.load_w > 1.3 * d->idle_w;
    if (!s.busy) s.events |= 0x1;                  /* GPU idle */
    if (s.load_w >= d->limit_w) s.events |= 0x4; /* software power cap */
    pthread_mutex_unlock(&sim_lock);
    return s;
}

/* ---- configuration ----------------------------------------------------------------------- */

typedef struct {
    const char *key;
    size_t at;
    enum { NUMBER, STRING } type;
} Key;

#define D(key) {#key, offsetof(Device, key), NUMBER}
static const Key device_keys[] = {
    {"name", offsetof(Device, name), STRING},
    {"uuid", offsetof(Device, uuid), STRING},
    {"serial", offsetof(Device, serial), STRING},
    {"pci_bus_id", offsetof(Device, pci_bus_id), STRING},
    {"load_log", offsetof(Device, log.path), STRING},
    D(architecture), D(compute_capability), D(minor_number), D(c2c), D(memory_mib),
    D(memory_used_mib), D(idle_w), D(limit_w), D(default_limit_w), D(min_limit_w), D(max_limit_w),
    D(temperature_c), D(temperature_per_w), D(sm_clock_mhz), D(sm_idle_mhz), D(memory_clock_mhz),
    D(persistence_mode), D(ecc_mode), D(mig_mode), D(mig_slices), D(seed), D(epoch_s), D(start_mj),
    D(read_s), D(counter_supported), D(counter_period_s), D(counter_phase_s), D(part_time),
    D(counter_gain), D(power_period_s), D(power_phase_s), D(averaging_window_s),
    D(one_second_average), D(instant_supported), D(average_supported), D(tick_jitter_s), D(lag_s),
    D(rise_s), D(noise_w), D(gain), D(offset_w), {NULL, 0, NUMBER},
};
#define S(key, type) {#key, offsetof(Simulation, key), type}
static const Key system_keys[] = {
    S(driver_version, STRING), S(nvml_version, STRING), S(clients, STRING), S(cuda_version, NUMBER),
    {"faults", offsetof(Simulation, faults_log.path), STRING}, {NULL, 0, NUMBER},
};

static int set_key(void *base, const Key *keys, const char *key, const char *value) {
    for (; keys->key; keys++) {
        if (strcmp(keys->key, key)) continue;
        char *at = (char *)base + keys->at;
        if (keys->type == STRING) snprintf(at, TEXT, "%s", value);
        else *(double *)(void *)at = strtod(value, NULL);
        return 1;
    }
    return 0;
}

static void add_slices(Device *d) {
    for (int i = 0; i < (int)d->mig_slices && sim.handle_count < MAX_DEVICES; i++) {
        Device *slice = &sim.devices[sim.handle_count++];
        *slice = (Device){.parent = d, .memory_mib = d->memory_mib / d->mig_slices};
        snprintf(slice->name, TEXT, "%.200s MIG %d", d->name, i);
        snprintf(slice->uuid, TEXT, "MIG-%.200s-%d", d->uuid + strcspn(d->uuid, "-") + 1, i);
    }
}

static int configure(const char *path) {
    char line[1024], key[64], value[TEXT];
    FILE *file = path ? fopen(path, "re") : NULL;
    if (!file) return DRIVER_NOT_LOADED;
    memset(&sim, 0, sizeof sim);
    Device *d = NULL;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%63s %255[^\n]", key, value) != 2) continue;
        if (!strcmp(key, "device") && sim.device_count < MAX_DEVICES)
            d = &sim.devices[sim.device_count++];
        else if (d ? !set_key(d, device_keys, key, value)
                   : !set_key(&sim, system_keys, key, value))
            fprintf(stderr, "simulated NVML: unknown key '%s' in %s\n", key, path);
    }
    fclose(file);
    sim.handle_count = sim.device_count;
    for (int i = 0; i < sim.device_count; i++) {
        add_piece(&sim.devices[i], sim.devices[i].epoch_s, sim.devices[i].idle_w);
        add_slices(&sim.devices[i]);
    }
    return OK;
}

/* Without persistence a counter starts again when the first client comes. Clients share a lock on
 * one file, whose text says when the first one came; who gets it alone is the first. */
static void join_clients(void) {
    char text[64] = "";
    if (!sim.clients[0]) return;
    sim.clients_fd = open(sim.clients, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (sim.clients_fd < 0) return;
    if (!flock(sim.clients_fd, LOCK_EX | LOCK_NB)) {
        int length = snprintf(text, sizeof text, "%.9f\n", now_s());
        if (pwrite(sim.clients_fd, text, (size_t)length, 0) != length) return;
    }
    flock(sim.clients_fd, LOCK_SH);
    if (pread(sim.clients_fd, text, sizeof text - 1, 0) > 0)
        sim.first_client_s = strtod(text, NULL);
}

int open_simulation(const char *path) {
    int code = configure(path);
    read_new_lines(&sim.faults_log, take_fault_line, NULL);
    if (!code) code = failure(NULL, "nvmlInit");
    if (!code) join_clients();
    return code;
}

void close_simulation(void) {
    if (sim.clients_fd > 0) close(sim.clients_fd);
    if (sim.faults_log.fd) close(sim.faults_log.fd);
    for (int i = 0; i < sim.device_count; i++) {
        Device *d = &sim.devices[i];
        if (d->log.fd) close(d->log.fd);
        free(d->load.start_s);
        free(d->load.level_w);
        free(d->load.joules);
        free(d->load.followed_w);
        free(d->counted_j);
    }
}
