#include "json.h"

#include <stdlib.h>
#include <string.h>

static void skip_space(postern_text *text) {
  while (text->len > 0 && strchr(" \t\r\n", text->ptr[0]) != NULL && text->ptr[0] != 0) {
    text->ptr++, text->len--;
  }
}

static bool skip_char(postern_text *text, char c) {
  skip_space(text);
  if (text->len == 0 || text->ptr[0] != (uint8_t)c) return false;
  text->ptr++, text->len--;
  return true;
}

/* How long the string at the beginning is, quotes included; 0 if there is none. */
static size_t string_length(postern_text text) {
  if (text.len == 0 || text.ptr[0] != '"') return 0;
  for (size_t i = 1; i < text.len; i++) {
    if (text.ptr[i] == '\\') {
      i++;
    } else if (text.ptr[i] == '"') {
      return i + 1;
    }
  }
  return 0;
}

/* How long the value at the beginning is. Nested ones are counted through, not checked: that is
 * done when they are opened. No recursion, so that the depth of a text cannot end the plugin. */
static size_t value_length(postern_text text) {
  size_t depth = 0, i = 0;
  while (i < text.len) {
    uint8_t c = text.ptr[i];
    if (c == '"') {
      size_t n = string_length((postern_text){text.ptr + i, text.len - i});
      if (n == 0) return 0;
      i += n;
      if (depth == 0) return i;
      continue;
    }
    if (c == '{' || c == '[') {
      depth++;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return i;
      if (--depth == 0) return i + 1;
    } else if (depth == 0 && (c == ',' || strchr(" \t\r\n", c) != NULL)) {
      return i;
    }
    i++;
  }
  return depth == 0 ? i : 0;
}

postern_json postern_json_open(postern_text value) {
  postern_json walk = {.rest = value, .is_first = true};
  if (skip_char(&walk.rest, '{')) {
    walk.is_object = true;
  } else if (!skip_char(&walk.rest, '[')) {
    walk.is_bad = true;
  }
  return walk;
}

static bool bad(postern_json *walk) {
  walk->is_bad = true;
  return false;
}

bool postern_json_next(postern_json *walk, postern_text *key, postern_text *value) {
  *key = (postern_text){NULL, 0};
  if (walk->is_bad) return false;
  if (skip_char(&walk->rest, walk->is_object ? '}' : ']')) {
    walk->rest.len = 0;
    return false;
  }
  if (walk->rest.len == 0) return walk->is_first ? bad(walk) : false;
  if (!walk->is_first && !skip_char(&walk->rest, ',')) return bad(walk);
  walk->is_first = false;
  skip_space(&walk->rest);
  if (walk->is_object) {
    size_t n = string_length(walk->rest);
    if (n == 0 || !postern_json_text((postern_text){walk->rest.ptr, n}, key)) return bad(walk);
    walk->rest.ptr += n, walk->rest.len -= n;
    if (!skip_char(&walk->rest, ':')) return bad(walk);
    skip_space(&walk->rest);
  }
  size_t n = value_length(walk->rest);
  if (n == 0) return bad(walk);
  *value = (postern_text){walk->rest.ptr, n};
  walk->rest.ptr += n, walk->rest.len -= n;
  return true;
}

static int hex(uint8_t c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Four digits at `at`, or -1. */
static int32_t code_unit(postern_text text, size_t at) {
  int32_t unit = 0;
  if (at + 4 > text.len) return -1;
  for (size_t i = 0; i < 4; i++) {
    int digit = hex(text.ptr[at + i]);
    if (digit < 0) return -1;
    unit = unit << 4 | digit;
  }
  return unit;
}

static size_t put_utf8(uint8_t *out, uint32_t c) {
  if (c < 0x80) {
    out[0] = (uint8_t)c;
    return 1;
  }
  size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = 0x80 | (c & 0x3f);
  out[0] = lead[n] | (uint8_t)c;
  return n;
}

bool postern_json_text(postern_text value, postern_text *text) {
  if (value.len < 2 || string_length(value) != value.len) return false;
  postern_text inner = {value.ptr + 1, value.len - 2};
  if (inner.len == 0 || memchr(inner.ptr, '\\', inner.len) == NULL) {
    *text = inner;
    return true;
  }
  /* An escape is never shorter than what it stands for. */
  uint8_t *out = malloc(inner.len);
  if (out == NULL) abort();
  size_t n = 0;
  for (size_t i = 0; i < inner.len; i++) {
    uint8_t c = inner.ptr[i];
    if (c != '\\') {
      out[n++] = c;
      continue;
    }
    c = inner.ptr[++i];
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = c == 0 ? NULL : strchr(from, c);
    if (at != NULL) {
      out[n++] = (uint8_t)to[at - from];
      continue;
    }
    int32_t unit = c == 'u' ? code_unit(inner, i + 1) : -1;
    if (unit < 0) goto bad;
    i += 4;
    uint32_t code = (uint32_t)unit;
    if (unit >= 0xd800 && unit < 0xe000) {
      /* One of a pair: the second half follows. */
      bool follows = unit < 0xdc00 && i + 2 < inner.len && inner.ptr[i + 1] == '\\' &&
                     inner.ptr[i + 2] == 'u';
      int32_t low = follows ? code_unit(inner, i + 3) : -1;
      if (low < 0xdc00 || low >= 0xe000) goto bad;
      i += 6;
      code = 0x10000 + (((uint32_t)unit - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
    }
    n += put_utf8(out + n, code);
  }
  *text = (postern_text){out, n};
  return true;
bad:
  free(out);
  return false;
}

bool postern_json_number(postern_text value, uint32_t *number) {
  uint64_t sum = 0;
  if (value.len == 0 || value.len > 10) return false;
  for (size_t i = 0; i < value.len; i++) {
    if (value.ptr[i] < '0' || value.ptr[i] > '9') return false;
    sum = sum * 10 + (value.ptr[i] - '0');
  }
  if (sum > UINT32_MAX) return false;
  *number = (uint32_t)sum;
  return true;
}
