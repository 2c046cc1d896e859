/* NVML as seen from outside: a libnvidia-ml.so.1 that real bindings load, over simulated devices.
 *
 * SIMULATED_NVML names the configuration file. Signatures and structures are those of nvml.h and of
 * nvidia-ml-py; what the values are is decided in simdevice.c.
 */
#include "simdevice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- library and system ------------------------------------------------------------------ */

API int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&sim_lock);
    int code = sim.users ? OK : open_simulation(getenv("SIMULATED_NVML"));
    if (!code) sim.users++;
    pthread_mutex_unlock(&sim_lock);
    return code;
}
API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlInit(void) { return nvmlInitWithFlags(0); }

API int nvmlShutdown(void) {
    pthread_mutex_lock(&sim_lock);
    int code = sim.users ? OK : UNINITIALIZED;
    if (sim.users && !--sim.users) close_simulation();
    pthread_mutex_unlock(&sim_lock);
    return code;
}

API const char *nvmlErrorString(int code) {
    static const char *const texts[] = {
        "The operation was successful", "Uninitialized", "Invalid Argument", "Not Supported",
        "Insufficient Permissions", "Already Initialized", "Not Found", "Insufficient Size",
        "Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
        "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost",
        "GPU requires reset", "The operating system has blocked the request.",
        "RM has detected an NVML/RM version mismatch.",
    };
    int known = code >= 0 && code < (int)(sizeof texts / sizeof *texts);
    return known ? texts[code] : "Unknown Error";
}

static int give_text(char *to, unsigned room, const char *text) {
    if (strlen(text) >= room) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return OK;
}

static int ready(const char *function) {
    return sim.users ? failure_now(NULL, function) : UNINITIALIZED;
}
#define READY() do { int code_ = ready(__func__); if (code_) return code_; } while (0)

API int nvmlSystemGetDriverVersion(char *text, unsigned room) {
    READY();
    return give_text(text, room, sim.driver_version);
}
API int nvmlSystemGetNVMLVersion(char *text, unsigned room) {
    READY();
    return give_text(text, room, sim.nvml_version);
}
API int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    READY();
    *version = (int)sim.cuda_version;
    return OK;
}
API int nvmlSystemGetCudaDriverVersion(int *version) {
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

/* ---- handles ----------------------------------------------------------------------------- */

enum { WHOLE, ANY }; /* which handles a function takes: a MIG slice has no sensors of its own */

static int enter(Device *d, const char *function, int which) {
    int code = ready(function);
    if (code) return code;
    if (d < sim.devices || d >= sim.devices + sim.handle_count) return INVALID_ARGUMENT;
    if (d->parent && which == WHOLE) return NOT_SUPPORTED;
    double stall_s = stalled_for_s(d);
    sleep_s(stall_s > 0.0 ? stall_s : d->read_s);
    return failure_now(d, function); /* the device may be lost by now */
}
#define ENTER(d, which) \
    do { int code_ = enter(d, __func__, which); if (code_) return code_; } while (0)

API int nvmlDeviceGetCount_v2(unsigned *count) {
    READY();
    *count = (unsigned)sim.device_count;
    return OK;
}
API int nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

API int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **d) {
    READY();
    if (index >= (unsigned)sim.device_count) return INVALID_ARGUMENT;
    ENTER(&sim.devices[index], ANY);
    *d = &sim.devices[index];
    return OK;
}
API int nvmlDeviceGetHandleByIndex(unsigned index, Device **d) {
    return nvmlDeviceGetHandleByIndex_v2(index, d);
}

static int find(const char *text, size_t at, const char *function, Device **d) {
    for (int i = 0; i < sim.handle_count; i++) {
        if (strcmp(text, (const char *)&sim.devices[i] + at)) continue;
        *d = &sim.devices[i];
        return enter(*d, function, ANY);
    }
    return NOT_FOUND;
}
API int nvmlDeviceGetHandleByUUID(const char *uuid, Device **d) {
    READY();
    return find(uuid, offsetof(Device, uuid), __func__, d);
}
API int nvmlDeviceGetHandleBySerial(const char *serial, Device **d) {
    READY();
    return find(serial, offsetof(Device, serial), __func__, d);
}
API int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, Device **d) {
    READY();
    return find(bus_id, offsetof(Device, pci_bus_id), __func__, d);
}

/* ---- identity ---------------------------------------------------------------------------- */

#define GET_TEXT(function, field, which)                       \
    API int function(Device *d, char *text, unsigned room) {   \
        ENTER(d, which);                                       \
        return give_text(text, room, d->field);                \
    }
#define GET_NUMBER(function, type, expression)                 \
    API int function(Device *d, type *value) {                 \
        ENTER(d, WHOLE);                                       \
        *value = (type)(expression);                           \
        return OK;                                             \
    }

GET_TEXT(nvmlDeviceGetName, name, ANY)
GET_TEXT(nvmlDeviceGetUUID, uuid, ANY)
GET_TEXT(nvmlDeviceGetSerial, serial, WHOLE)
GET_NUMBER(nvmlDeviceGetIndex, unsigned, number_of(d))
GET_NUMBER(nvmlDeviceGetMinorNumber, unsigned, d->minor_number)
GET_NUMBER(nvmlDeviceGetBoardId, unsigned, number_of(d) << 8)
GET_NUMBER(nvmlDeviceGetArchitecture, unsigned, d->architecture)
GET_NUMBER(nvmlDeviceGetBrand, int, 0)

API int nvmlDeviceGetCudaComputeCapability(Device *d, int *major, int *minor) {
    ENTER(d, ANY);
    *major = (int)d->compute_capability;
    *minor = (int)rint(10.0 * (d->compute_capability - *major));
    return OK;
}

typedef struct {
    char legacy_id[16];
    unsigned domain, bus, device, pci_device, subsystem;
    char id[32];
} PciInfo;

API int nvmlDeviceGetPciInfo_v3(Device *d, PciInfo *pci) {
    ENTER(d, WHOLE);
    memset(pci, 0, sizeof *pci);
    snprintf(pci->id, sizeof pci->id, "%.31s", d->pci_bus_id);
    if (sscanf(d->pci_bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) == 3)
        snprintf(pci->legacy_id, sizeof pci->legacy_id, "%04x:%02x:%02x.0", pci->domain & 0xffff,
                 pci->bus & 0xff, pci->device & 0xff);
    return OK;
}

API int nvmlDeviceGetC2cModeInfoV(Device *d, unsigned *enabled) {
    ENTER(d, WHOLE);
    if (!d->c2c) return NOT_SUPPORTED;
    *enabled = 1;
    return OK;
}

/* ---- energy and power -------------------------------------------------------------------- */

API int nvmlDeviceGetTotalEnergyConsumption(Device *d, unsigned long long *mj) {
    ENTER(d, WHOLE);
    if (!d->counter_supported) return NOT_SUPPORTED;
    *mj = (unsigned long long)shown_counter_mj(d);
    return OK;
}

GET_NUMBER(nvmlDeviceGetPowerUsage, unsigned, shown_mw(d, d->one_second_average != 0.0))
GET_NUMBER(nvmlDeviceGetPowerManagementMode, int, 1)
GET_NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, 1000.0 * d->limit_w)
GET_NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, 1000.0 * d->default_limit_w)
GET_NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 1000.0 * d->limit_w)

API int nvmlDeviceGetPowerManagementLimitConstraints(Device *d, unsigned *low, unsigned *high) {
    ENTER(d, WHOLE);
    *low = (unsigned)(1000.0 * d->min_limit_w);
    *high = (unsigned)(1000.0 * d->max_limit_w);
    return OK;
}

enum { FIELD_ENERGY = 83, FIELD_AVERAGE = 185, FIELD_INSTANT = 186 };
enum { SCOPE_GPU = 0 };
enum { TYPE_UNSIGNED = 1, TYPE_UNSIGNED_LONG_LONG = 3 };

typedef struct {
    unsigned field, scope;
    long long timestamp_us, latency_us;
    int type, code;
    union { unsigned u; unsigned long long ull; } value;
} FieldValue;

static int fill_field(Device *d, FieldValue *f) {
    char name[32];
    snprintf(name, sizeof name, "field:%u", f->field);
    int code = failure_now(d, name);
    if (code) return code;
    if (f->scope != SCOPE_GPU) return NOT_SUPPORTED; /* no meter of the memory or the module */
    f->type = f->field == FIELD_ENERGY ? TYPE_UNSIGNED_LONG_LONG : TYPE_UNSIGNED;
    if (f->field == FIELD_ENERGY && d->counter_supported)
        f->value.ull = (unsigned long long)shown_counter_mj(d);
    else if (f->field == FIELD_AVERAGE && d->average_supported)
        f->value.u = (unsigned)shown_mw(d, 1);
    else if (f->field == FIELD_INSTANT && d->instant_supported)
        f->value.u = (unsigned)shown_mw(d, 0);
    else
        return NOT_SUPPORTED;
    return OK;
}

API int nvmlDeviceGetFieldValues(Device *d, int count, FieldValue *fields) {
    struct timespec wall;
    ENTER(d, WHOLE);
    clock_gettime(CLOCK_REALTIME, &wall); /* what NVML stamps values with, unlike its callers */
    for (int i = 0; i < count; i++) {
        fields[i].timestamp_us = wall.tv_sec * 1000000LL + wall.tv_nsec / 1000;
        fields[i].latency_us = 0;
        fields[i].value.ull = 0;
        fields[i].code = fill_field(d, &fields[i]);
    }
    return OK;
}

/* ---- state ------------------------------------------------------------------------------- */

static int temperature_c(Device *d) {
    return (int)(d->temperature_c + d->temperature_per_w * state(d).recent_w);
}
API int nvmlDeviceGetTemperature(Device *d, int sensor, unsigned *celsius) {
    ENTER(d, WHOLE);
    if (sensor) return INVALID_ARGUMENT;
    *celsius = (unsigned)temperature_c(d);
    return OK;
}
typedef struct { unsigned version; int sensor, celsius; } Temperature;
API int nvmlDeviceGetTemperatureV(Device *d, Temperature *t) {
    ENTER(d, WHOLE);
    if (t->version != (sizeof *t | 1U << 24)) return VERSION_MISMATCH;
    t->celsius = temperature_c(d);
    return OK;
}

static unsigned sm_clock_mhz(Device *d) {
    const unsigned long long slowed = 0x8 | 0x20 | 0x40 | 0x80; /* hardware and thermal slowdown */
    State s = state(d);
    if (!s.busy) return (unsigned)d->sm_idle_mhz;
    return (unsigned)rint(s.events & slowed ? 0.7 * d->sm_clock_mhz : d->sm_clock_mhz);
}
enum { CLOCK_MEMORY = 2 };
API int nvmlDeviceGetClockInfo(Device *d, int type, unsigned *mhz) {
    ENTER(d, WHOLE);
    *mhz = type == CLOCK_MEMORY ? (unsigned)d->memory_clock_mhz : sm_clock_mhz(d);
    return OK;
}
API int nvmlDeviceGetMaxClockInfo(Device *d, int type, unsigned *mhz) {
    ENTER(d, WHOLE);
    *mhz = (unsigned)(type == CLOCK_MEMORY ? d->memory_clock_mhz : d->sm_clock_mhz);
    return OK;
}
static int give_clock(double mhz, unsigned *count, unsigned *clocks) {
    int fits = clocks && *count >= 1;
    *count = 1;
    if (!fits) return INSUFFICIENT_SIZE;
    clocks[0] = (unsigned)mhz;
    return OK;
}
API int nvmlDeviceGetSupportedMemoryClocks(Device *d, unsigned *count, unsigned *clocks) {
    ENTER(d, WHOLE);
    return give_clock(d->memory_clock_mhz, count, clocks);
}
API int nvmlDeviceGetSupportedGraphicsClocks(Device *d, unsigned memory_mhz, unsigned *count,
                                             unsigned *clocks) {
    (void)memory_mhz;
    ENTER(d, WHOLE);
    return give_clock(d->sm_clock_mhz, count, clocks);
}

GET_NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, state(d).events)
GET_NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, state(d).events)
GET_NUMBER(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, 0x1ff)
GET_NUMBER(nvmlDeviceGetSupportedClocksThrottleReasons, unsigned long long, 0x1ff)
GET_NUMBER(nvmlDeviceGetPersistenceMode, int, d->persistence_mode)
GET_NUMBER(nvmlDeviceGetPerformanceState, int, state(d).busy ? 0 : 8)
GET_NUMBER(nvmlDeviceGetComputeMode, int, 0)

typedef struct { unsigned gpu, memory; } Utilization;
API int nvmlDeviceGetUtilizationRates(Device *d, Utilization *use) {
    ENTER(d, WHOLE);
    if (d->mig_mode) return NOT_SUPPORTED;
    *use = state(d).busy ? (Utilization){100, 50} : (Utilization){0, 0};
    return OK;
}
API int nvmlDeviceGetEccMode(Device *d, int *current, int *pending) {
    ENTER(d, WHOLE);
    *current = *pending = (int)d->ecc_mode;
    return OK;
}

typedef struct { unsigned long long total, free, used; } Memory;
API int nvmlDeviceGetMemoryInfo(Device *d, Memory *m) {
    ENTER(d, ANY);
    m->total = (unsigned long long)d->memory_mib * MIB;
    m->used = (unsigned long long)d->memory_used_mib * MIB;
    m->free = m->total - m->used;
    return OK;
}
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;
API int nvmlDeviceGetMemoryInfo_v2(Device *d, Memory2 *m) {
    ENTER(d, ANY);
    if (m->version != (sizeof *m | 2U << 24)) return VERSION_MISMATCH;
    m->total = (unsigned long long)d->memory_mib * MIB;
    m->reserved = 0;
    m->used = (unsigned long long)d->memory_used_mib * MIB;
    m->free = m->total - m->used;
    return OK;
}

/* ---- MIG --------------------------------------------------------------------------------- */

API int nvmlDeviceGetMigMode(Device *d, unsigned *current, unsigned *pending) {
    ENTER(d, WHOLE);
    if (d->architecture < 7) return NOT_SUPPORTED;
    *current = *pending = (unsigned)d->mig_mode;
    return OK;
}
GET_NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned, d->mig_mode ? 7 : 0)

API int nvmlDeviceIsMigDeviceHandle(Device *d, unsigned *is_slice) {
    ENTER(d, ANY);
    *is_slice = d->parent != NULL;
    return OK;
}
API int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *d, Device **parent) {
    ENTER(d, ANY);
    if (!d->parent) return INVALID_ARGUMENT;
    *parent = d->parent;
    return OK;
}
API int nvmlDeviceGetMigDeviceHandleByIndex(Device *d, unsigned index, Device **slice) {
    ENTER(d, WHOLE);
    for (int i = sim.device_count; i < sim.handle_count; i++)
        if (sim.devices[i].parent == d && !index--) return *slice = &sim.devices[i], OK;
    return NOT_FOUND;
}

/* ---- processes --------------------------------------------------------------------------- */

typedef struct { unsigned pid; unsigned long long used; } Process1;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } Process;

static int list_processes(Device *d, unsigned *count, void *rows, size_t row_bytes) {
    const Fault *f;
    unsigned found = 0, room = rows ? *count : 0;
    double t_s = now_s();
    for (size_t i = 0; (f = next_fault(d, "process", t_s, &i)); found++) {
        Process p = {(unsigned)atoi(f->name), (unsigned long long)f->number * MIB, ~0U, ~0U};
        if (found < room) memcpy((char *)rows + found * row_bytes, &p, row_bytes);
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}
API int nvmlDeviceGetComputeRunningProcesses(Device *d, unsigned *count, void *rows) {
    ENTER(d, ANY);
    return list_processes(d, count, rows, sizeof(Process1));
}
API int nvmlDeviceGetComputeRunningProcesses_v2(Device *d, unsigned *count, void *rows) {
    ENTER(d, ANY);
    return list_processes(d, count, rows, sizeof(Process));
}
API int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *count, void *rows) {
    ENTER(d, ANY);
    return list_processes(d, count, rows, sizeof(Process));
}
#define NO_PROCESSES(function)                                      \
    API int function(Device *d, unsigned *count, void *rows) {      \
        (void)rows;                                                 \
        ENTER(d, ANY);                                              \
        *count = 0;                                                 \
        return OK;                                                  \
    }
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3)

/* ---- settings, which nobody here may change ---------------------------------------------- */

#define REFUSED(function)                   \
    API int function(Device *d, ...) {      \
        ENTER(d, WHOLE);                    \
        return NO_PERMISSION;               \
    }
REFUSED(nvmlDeviceSetPersistenceMode)
REFUSED(nvmlDeviceSetPowerManagementLimit)
REFUSED(nvmlDeviceSetGpuLockedClocks)
REFUSED(nvmlDeviceSetMemoryLockedClocks)
REFUSED(nvmlDeviceResetGpuLockedClocks)
REFUSED(nvmlDeviceResetMemoryLockedClocks)
