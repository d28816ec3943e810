/* Whether a card number can be one: the Luhn check, as a LogLine function in C without a library.
 *
 *   clang --target=wasm32 -O2 -nostdlib -ffreestanding -Wl,--no-entry -o luhn.wasm luhn.c
 *
 * The request's input is a text of digits, spaces and hyphens; the answer {"valid": true or false, "digits": n}. */

typedef unsigned int u32;
typedef unsigned long long u64;

/* ABI v1: a pointer in the high 32 bits, a length in the low 31, bit 31 for an error object. */
static u64 packed(const char *text, u32 len, int is_error) {
    return ((u64)(u32)text << 32) | (is_error ? 0x80000000u : 0) | len;
}

/* An instance serves one call: memory is handed out from the end of the program's own and never taken back. */
extern unsigned char __heap_base;
static u32 next = 0;

__attribute__((export_name("alloc"))) u32 alloc(u32 len) {
    if (next == 0) next = (u32)&__heap_base;
    u32 at = (next + 7) & ~7u;
    if (len > 0x7fffffffu - at) __builtin_trap();
    next = at + len;
    u32 pages = (next + 0xffff) >> 16, have = __builtin_wasm_memory_size(0);
    if (pages > have && __builtin_wasm_memory_grow(0, pages - have) == (u32)-1) __builtin_trap();
    return at;
}

static u64 failed(const char *text) {
    u32 len = 0;
    while (text[len]) len++;
    return packed(text, len, 1);
}

/* Where the value of the call's member "input" begins. The call is canonical JSON: members are sorted and nothing stands between
 * them, so "input" follows "function", whose members have no such name, and whatever "config" holds comes before it. */
static const char *input_of(const char *call, u32 len) {
    static const char name[] = "\"input\":";
    u32 depth = 0;
    int in_text = 0;
    for (u32 i = 0; i + sizeof name - 1 <= len; i++) {
        char c = call[i];
        if (in_text) {
            if (c == '\\') i++;
            else if (c == '"') in_text = 0;
            continue;
        }
        if (c == '{' || c == '[') depth++;
        if (c == '}' || c == ']') depth--;
        if (c != '"') continue;
        if (depth == 1) {
            u32 n = 0;
            while (n < sizeof name - 1 && call[i + n] == name[n]) n++;
            if (n == sizeof name - 1) return call + i + n;
        }
        in_text = 1;
    }
    return 0;
}

__attribute__((export_name("run"))) u64 run(const char *call, u32 len) {
    const char *input = input_of(call, len), *end = call + len;
    if (!input || *input != '"') return failed("{\"code\":\"invalid_input\",\"message\":\"input is no text: send a card number\"}");
    char digits[32];
    u32 count = 0;
    for (const char *c = input + 1; c < end && *c != '"'; c++) {
        if (*c == ' ' || *c == '-') continue;
        if (*c < '0' || *c > '9' || count == sizeof digits)
            return failed("{\"code\":\"invalid_input\",\"message\":\"input must be up to 32 digits, spaces and hyphens\"}");
        digits[count++] = *c - '0';
    }
    u32 sum = 0;
    for (u32 i = 0; i < count; i++) {
        u32 digit = (u32)digits[count - 1 - i] << (i & 1);
        sum += digit > 9 ? digit - 9 : digit;
    }
    /* {"digits":nn,"valid":true} */
    static char answer[40] = "{\"digits\":";
    u32 at = 10;
    if (count > 9) answer[at++] = '0' + count / 10;
    answer[at++] = '0' + count % 10;
    const char *rest = count > 1 && sum % 10 == 0 ? ",\"valid\":true}" : ",\"valid\":false}";
    while (*rest) answer[at++] = *rest++;
    return packed(answer, at, 0);
}
