/* A stand-in for NVIDIA's driver, libcuda.so.1, on a machine without a GPU.

   Device memory is the host's. Work is queued on streams and executed only when something waits for
   it, so that a missing wait gives wrong numbers. It models what this project depends on:

   - every thread has its own stack of contexts, and nothing works without a current one;
   - memory of a set size, on the device and pinned, each object of which is counted until it is freed;
   - copies from and to memory that is not pinned wait for the stream, and are refused in captures;
   - captures are invalidated by calls that CUDA does not permit in them.

   Calls of different threads must not overlap. Forks of captures, the default stream and kernels
   are not modelled; a host function takes the place of a kernel and takes 1 ms of device time. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_READY = 600,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_ISOLATION = 905,
    CAPTURE_WRONG_THREAD = 908,
} Status;

enum { DEVICES = 2, DEPTH = 16, DRIVER_VERSION = 13000, RELAXED = 2 };
enum { STREAM = 1, EVENT, GRAPH, EXECUTABLE, KINDS };

/* What exists now, and what happened since the last reset. Tests read it by name. */
struct {
    long device_blocks, pinned_blocks, streams, events, graphs, executables;
    long launches, enqueued, pageable_copies;
} standin;

typedef struct { int device, retained; size_t used; } Context;

typedef struct Operation {
    enum { COPY, RECORD, WAIT, HOST, LAUNCH } kind;
    void *target;
    const void *source;
    size_t size;
    struct Event *event;
    long ticket; /* number of the recording that RECORD makes and WAIT waits for */
    void (*function)(void *);
    struct Graph *graph;
    struct Operation *next;
} Operation;

typedef struct { Operation *first, *last; } Queue;

/* Objects begin with their kind and context. They are never reused, so that a handle that was
   destroyed, or was made before the last reset, is recognised. */
typedef struct Graph { int kind; Context *context; Queue work; } Graph;

typedef struct Stream {
    int kind;
    Context *context;
    Queue work, captured;
    int capturing, mode, invalidated;
    void *thread; /* that began the capture */
    struct Stream *next;
} Stream;

typedef struct Event {
    int kind;
    Context *context;
    Stream *stream, *capture; /* of its last recording */
    long recorded, reached;
    double time;
} Event;

typedef struct Block {
    uint64_t address;
    size_t size;
    int pinned;
    Context *context;
    struct Block *next;
} Block;

static int initialised, captures_refused, resets;
static size_t memory_size, pinned_size, pinned_used;
static double device_time;
static Context contexts[DEVICES];
static Block *blocks;
static Stream *streams;
static __thread Context *stack[DEPTH];
static __thread int depth;

#define KIND(is) (resets * KINDS + (is))
#define CURRENT (depth && stack[depth - 1]->retained ? stack[depth - 1] : NULL)
#define NEED(condition, status) do { if (!(condition)) return status; } while (0)
#define NEED_CONTEXT do { NEED(initialised, NOT_INITIALIZED); NEED(CURRENT, INVALID_CONTEXT); } while (0)
#define NEED_OBJECT(object, is) \
    NEED_CONTEXT; \
    NEED((object) && (object)->kind == KIND(is) && (object)->context == CURRENT, INVALID_HANDLE)
#define NEED_NO_CAPTURE NEED(!invalidate(), CAPTURE_UNSUPPORTED)

/* Whether a capture forbids this thread to allocate, free or wait; if so, invalidates it. */
static int invalidate(void)
{
    int found = 0;
    for (Stream *s = streams; s; s = s->next)
        if (s->capturing && s->mode != RELAXED && (s->mode == 0 || s->thread == &depth))
            found = s->invalidated = 1;
    return found;
}

static void append(Stream *s, Operation operation)
{
    Queue *queue = s->capturing ? &s->captured : &s->work;
    Operation *added = malloc(sizeof *added);
    *added = operation;
    added->next = NULL;
    *(queue->first ? &queue->last->next : &queue->first) = added;
    queue->last = added;
}

static void execute_until(Stream *s, Event *event, long ticket);

static void execute(Operation *o)
{
    switch (o->kind) {
    case COPY: memcpy(o->target, o->source, o->size); break;
    case RECORD: o->event->reached = o->ticket; o->event->time = device_time; break;
    case WAIT: execute_until(o->event->stream, o->event, o->ticket); break;
    case HOST: device_time += 1; o->function(o->target); break;
    case LAUNCH: for (Operation *p = o->graph->work.first; p; p = p->next) execute(p); break;
    }
}

/* Execute the work of a stream up to a recording of an event, or all of it. */
static void execute_until(Stream *s, Event *event, long ticket)
{
    while (s && s->work.first && !(event && event->reached >= ticket)) {
        Operation *o = s->work.first;
        s->work.first = o->next;
        execute(o);
        free(o);
    }
}

static void execute_all(void)
{
    for (Stream *s = streams; s; s = s->next) execute_until(s, NULL, 0);
}

/* For the tests */

void standin_reset(size_t memory, size_t pinned, int refuse_captures)
{
    execute_all();
    while (blocks) {
        Block *b = blocks;
        blocks = b->next;
        free((void *)b->address);
        free(b);
    }
    streams = NULL;
    resets++;
    device_time = 0;
    memory_size = memory;
    pinned_size = pinned;
    pinned_used = 0;
    captures_refused = refuse_captures;
    for (int device = 0; device < DEVICES; device++) contexts[device].used = 0;
    memset(&standin, 0, sizeof standin);
}

long standin_pending(void)
{
    long count = 0;
    for (Stream *s = streams; s; s = s->next)
        for (Operation *o = s->work.first; o; o = o->next) count++;
    return count;
}

size_t standin_size(uint64_t address)
{
    for (Block *b = blocks; b; b = b->next)
        if (b->address == address && !b->pinned) return b->size;
    return 0;
}

/* Devices and contexts */

Status cuInit(unsigned flags)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    NEED(!visible || (*visible && *visible != '-'), NO_DEVICE);
    initialised = 1;
    return SUCCESS;
}

Status cuDriverGetVersion(int *version) { *version = DRIVER_VERSION; return SUCCESS; }

Status cuDeviceGetCount(int *count)
{
    NEED(initialised, NOT_INITIALIZED);
    *count = DEVICES;
    return SUCCESS;
}

Status cuDeviceGet(int *device, int index)
{
    NEED(initialised, NOT_INITIALIZED);
    NEED(index >= 0 && index < DEVICES, INVALID_DEVICE);
    *device = index;
    return SUCCESS;
}

Status cuDeviceGetName(char *name, int size, int device)
{
    snprintf(name, size, "Stand-in GPU %d", device);
    return SUCCESS;
}

Status cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute == 75 ? 8 : attribute == 76 ? 6 + device : 0; /* compute capability */
    return SUCCESS;
}

Status cuDeviceComputeCapability(int *major, int *minor, int device)
{
    cuDeviceGetAttribute(major, 75, device);
    return cuDeviceGetAttribute(minor, 76, device);
}

Status cuDevicePrimaryCtxRetain(Context **context, int device)
{
    NEED(initialised, NOT_INITIALIZED);
    NEED(device >= 0 && device < DEVICES, INVALID_DEVICE);
    *context = &contexts[device];
    (*context)->device = device;
    (*context)->retained++;
    return SUCCESS;
}

Status cuDevicePrimaryCtxRelease_v2(int device)
{
    NEED(device >= 0 && device < DEVICES && contexts[device].retained, INVALID_CONTEXT);
    contexts[device].retained--;
    return SUCCESS;
}

Status cuCtxPushCurrent_v2(Context *context)
{
    NEED(context && context->retained && depth < DEPTH, INVALID_CONTEXT);
    stack[depth++] = context;
    return SUCCESS;
}

Status cuCtxPopCurrent_v2(Context **context)
{
    NEED(depth, INVALID_CONTEXT);
    depth--;
    if (context) *context = stack[depth];
    return SUCCESS;
}

Status cuCtxDetach(Context *context) { return INVALID_CONTEXT; } /* not for primary contexts */

Status cuCtxGetDevice(int *device)
{
    NEED_CONTEXT;
    *device = CURRENT->device;
    return SUCCESS;
}

Status cuGetErrorString(Status status, const char **text)
{
    *text = status == OUT_OF_MEMORY ? "out of memory" : "refused by the stand-in driver";
    return SUCCESS;
}

/* Memory */

static Block *block_of(uint64_t address, size_t size)
{
    for (Block *b = blocks; b; b = b->next)
        if (address >= b->address && address + size <= b->address + b->size) return b;
    return NULL;
}

static Status allocate(uint64_t *address, size_t size, int pinned)
{
    NEED_CONTEXT;
    NEED_NO_CAPTURE;
    NEED(size, INVALID_VALUE);
    size_t *used = pinned ? &pinned_used : &CURRENT->used;
    void *memory;
    NEED(*used + size <= (pinned ? pinned_size : memory_size), OUT_OF_MEMORY);
    NEED(!posix_memalign(&memory, 512, size), OUT_OF_MEMORY);
    memset(memory, 0xff, size); /* NaN */
    Block *b = malloc(sizeof *b);
    *b = (Block){(uint64_t)memory, size, pinned, CURRENT, blocks};
    blocks = b;
    *address = b->address;
    *used += size;
    (*(pinned ? &standin.pinned_blocks : &standin.device_blocks))++;
    return SUCCESS;
}

static Status release(uint64_t address, int pinned)
{
    NEED_CONTEXT;
    NEED_NO_CAPTURE;
    execute_all(); /* freeing waits for the device */
    for (Block **link = &blocks; *link; link = &(*link)->next) {
        Block *b = *link;
        if (b->address != address || b->pinned != pinned) continue;
        *link = b->next;
        *(pinned ? &pinned_used : &b->context->used) -= b->size;
        (*(pinned ? &standin.pinned_blocks : &standin.device_blocks))--;
        free((void *)address);
        free(b);
        return SUCCESS;
    }
    return INVALID_VALUE;
}

Status cuMemGetInfo_v2(size_t *free, size_t *total)
{
    NEED_CONTEXT;
    *total = memory_size;
    *free = memory_size - CURRENT->used;
    return SUCCESS;
}

Status cuMemAlloc_v2(uint64_t *address, size_t size) { return allocate(address, size, 0); }
Status cuMemFree_v2(uint64_t address) { return release(address, 0); }
Status cuMemAllocHost_v2(void **address, size_t size) { return allocate((uint64_t *)address, size, 1); }
Status cuMemHostAlloc(void **address, size_t size, unsigned flags) { return allocate((uint64_t *)address, size, 1); }
Status cuMemFreeHost(void *address) { return release((uint64_t)address, 1); }

static Status copy(uint64_t target, uint64_t source, size_t size, Stream *s, uint64_t device, uint64_t host)
{
    NEED_OBJECT(s, STREAM);
    Block *on_device = block_of(device, size), *on_host = block_of(host, size);
    NEED(on_device && !on_device->pinned, INVALID_VALUE);
    append(s, (Operation){.kind = COPY, .target = (void *)target, .source = (void *)source, .size = size});
    if (on_host && on_host->pinned) return SUCCESS;
    standin.pageable_copies++;
    if (s->capturing) {
        s->invalidated = 1;
        return CAPTURE_UNSUPPORTED;
    }
    execute_until(s, NULL, 0);
    return SUCCESS;
}

Status cuMemcpyHtoDAsync_v2(uint64_t device, const void *host, size_t size, Stream *s)
{
    return copy(device, (uint64_t)host, size, s, device, (uint64_t)host);
}

Status cuMemcpyDtoHAsync_v2(void *host, uint64_t device, size_t size, Stream *s)
{
    return copy((uint64_t)host, device, size, s, device, (uint64_t)host);
}

/* Streams and events */

Status cuStreamCreate(Stream **stream, unsigned flags)
{
    NEED_CONTEXT;
    *stream = calloc(1, sizeof **stream);
    **stream = (Stream){.kind = KIND(STREAM), .context = CURRENT, .next = streams};
    streams = *stream;
    standin.streams++;
    return SUCCESS;
}

Status cuStreamDestroy_v2(Stream *s)
{
    NEED_OBJECT(s, STREAM);
    execute_until(s, NULL, 0);
    for (Stream **link = &streams; *link; link = &(*link)->next)
        if (*link == s) {
            *link = s->next;
            break;
        }
    s->kind = 0;
    standin.streams--;
    return SUCCESS;
}

Status cuEventCreate(Event **event, unsigned flags)
{
    NEED_CONTEXT;
    *event = calloc(1, sizeof **event);
    **event = (Event){.kind = KIND(EVENT), .context = CURRENT};
    standin.events++;
    return SUCCESS;
}

Status cuEventDestroy_v2(Event *event)
{
    NEED_OBJECT(event, EVENT);
    event->kind = 0;
    standin.events--;
    return SUCCESS;
}

Status cuEventRecord(Event *event, Stream *s)
{
    NEED_OBJECT(event, EVENT);
    NEED_OBJECT(s, STREAM);
    event->stream = s;
    event->capture = s->capturing ? s : NULL;
    append(s, (Operation){.kind = RECORD, .event = event, .ticket = ++event->recorded});
    return SUCCESS;
}

Status cuStreamWaitEvent(Stream *s, Event *event, unsigned flags)
{
    NEED_OBJECT(event, EVENT);
    NEED_OBJECT(s, STREAM);
    if (event->capture != (s->capturing ? s : NULL)) {
        s->invalidated = 1;
        return CAPTURE_ISOLATION;
    }
    append(s, (Operation){.kind = WAIT, .event = event, .ticket = event->recorded});
    return SUCCESS;
}

Status cuEventSynchronize(Event *event)
{
    NEED_OBJECT(event, EVENT);
    NEED_NO_CAPTURE;
    execute_until(event->stream, event, event->recorded);
    return SUCCESS;
}

Status cuEventElapsedTime_v2(float *milliseconds, Event *start, Event *stop)
{
    NEED_OBJECT(start, EVENT);
    NEED_OBJECT(stop, EVENT);
    NEED(start->recorded && stop->recorded, INVALID_HANDLE);
    NEED(start->reached == start->recorded && stop->reached == stop->recorded, NOT_READY);
    *milliseconds = stop->time - start->time;
    return SUCCESS;
}

Status cuLaunchHostFunc(Stream *s, void (*function)(void *), void *argument)
{
    NEED_OBJECT(s, STREAM);
    append(s, (Operation){.kind = HOST, .function = function, .target = argument});
    standin.enqueued++;
    return SUCCESS;
}

/* Graphs */

Status cuStreamBeginCapture_v2(Stream *s, int mode)
{
    NEED_OBJECT(s, STREAM);
    NEED(!s->capturing, ILLEGAL_STATE);
    s->capturing = 1;
    s->mode = mode;
    s->invalidated = captures_refused;
    s->thread = &depth;
    s->captured = (Queue){0};
    return SUCCESS;
}

Status cuStreamEndCapture(Stream *s, Graph **graph)
{
    *graph = NULL;
    NEED_OBJECT(s, STREAM);
    NEED(s->capturing, ILLEGAL_STATE);
    NEED(s->mode == RELAXED || s->thread == &depth, CAPTURE_WRONG_THREAD);
    s->capturing = 0;
    NEED(!s->invalidated, CAPTURE_INVALIDATED);
    *graph = calloc(1, sizeof **graph);
    **graph = (Graph){KIND(GRAPH), CURRENT, s->captured};
    standin.graphs++;
    return SUCCESS;
}

Status cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags)
{
    NEED_CONTEXT;
    NEED(graph && graph->kind == KIND(GRAPH), INVALID_VALUE);
    *executable = calloc(1, sizeof **executable);
    **executable = (Graph){KIND(EXECUTABLE), CURRENT, graph->work};
    standin.executables++;
    return SUCCESS;
}

Status cuGraphDestroy(Graph *graph)
{
    NEED(graph && graph->kind == KIND(GRAPH), INVALID_VALUE);
    graph->kind = 0;
    standin.graphs--;
    return SUCCESS;
}

Status cuGraphExecDestroy(Graph *executable)
{
    NEED(executable && executable->kind == KIND(EXECUTABLE), INVALID_VALUE);
    execute_all();
    executable->kind = 0;
    standin.executables--;
    return SUCCESS;
}

Status cuGraphLaunch(Graph *executable, Stream *s)
{
    NEED_OBJECT(executable, EXECUTABLE);
    NEED_OBJECT(s, STREAM);
    append(s, (Operation){.kind = LAUNCH, .graph = executable});
    standin.launches++;
    return SUCCESS;
}

/* Look-up of functions: the newest variant that is defined above. */

Status cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *result)
{
    static void *self;
    char variant[128];
    if (!self) {
        Dl_info info;
        dladdr((void *)cuInit, &info);
        self = dlopen(info.dli_fname, RTLD_LAZY);
    }
    snprintf(variant, sizeof variant, "%s_v2", name);
    if (!(*function = dlsym(self, variant))) *function = dlsym(self, name);
    if (!strcmp(name, "cuGraphInstantiate")) *function = (void *)cuGraphInstantiateWithFlags;
    if (result) *result = !*function; /* 1: not found */
    return SUCCESS;
}

Status cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
