/* The simulated devices behind simnvml.c: what they are and what they show. */
#ifndef SIMDEVICE_H
#define SIMDEVICE_H

#include <pthread.h>
#include <stddef.h>
#include <sys/types.h>

#define API __attribute__((visibility("default")))
#define MAX_DEVICES 64
#define MAX_FAULTS 1024
#define TEXT 256
#define MIB 1048576ULL

/* The error codes of NVML that are used here. */
enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    VERSION_MISMATCH = 25,
};

typedef struct { /* a file that only grows, read as far as its lines are complete */
    char path[TEXT];
    int fd; /* 0: not open yet */
    off_t read_to;
} Log;

typedef struct { /* constant pieces of power; joules and followed are their values at start */
    double *start_s, *level_w, *joules, *followed_w;
    size_t count, room;
} Load;

typedef struct { /* a value once published for a tick stays, even if the log was late for it */
    long tick;
    double value;
    int is_set;
} Held;

typedef struct Device {
    char name[TEXT], uuid[TEXT], serial[TEXT], pci_bus_id[TEXT];
    double architecture, compute_capability, minor_number, c2c, memory_mib, memory_used_mib;
    double idle_w, limit_w, default_limit_w, min_limit_w, max_limit_w;
    double temperature_c, temperature_per_w, sm_clock_mhz, sm_idle_mhz, memory_clock_mhz;
    double persistence_mode, ecc_mode, mig_mode, mig_slices;
    double seed, epoch_s, start_mj, read_s;
    double counter_supported, counter_period_s, counter_phase_s, part_time, counter_gain;
    double power_period_s, power_phase_s, averaging_window_s, one_second_average;
    double instant_supported, average_supported;
    double tick_jitter_s, lag_s, rise_s, noise_w, gain, offset_w;
    Log log;
    Load load;
    double *counted_j; /* part-time counter: total after each tick whose load is settled */
    size_t counted, counted_room;
    Held held_counter, held_instant, held_average;
    struct Device *parent; /* of a MIG slice */
} Device;

typedef struct {
    int device; /* -1: all */
    double from_s, until_s;
    char kind[16], name[96];
    double number;
} Fault;

typedef struct {
    char driver_version[TEXT], nvml_version[TEXT], clients[TEXT];
    double cuda_version;
    Log faults_log;
    Fault faults[MAX_FAULTS];
    size_t fault_count;
    Device devices[MAX_DEVICES];
    int device_count, handle_count; /* handles: devices, then MIG slices */
    int users, clients_fd;
    double first_client_s;
} Simulation;

typedef struct { /* beside the sensor: follows the load at once */
    double load_w, recent_w;
    unsigned long long events;
    int busy;
} State;

extern Simulation sim;
extern pthread_mutex_t sim_lock; /* held by callers of what is marked "locked" */

double now_s(void);
void sleep_s(double seconds);

int open_simulation(const char *path); /* locked */
void close_simulation(void);           /* locked */

int failure_now(const Device *d, const char *function); /* the NVML error to return, or OK */
double stalled_for_s(const Device *d);
const Fault *next_fault(const Device *d, const char *kind, double t_s, size_t *i);
int number_of(const Device *d);

double shown_counter_mj(Device *d);
double shown_mw(Device *d, int averaged);
State state(Device *d);

#endif
