/* Between the generated functions and those of postern.h.
 *
 * Only what a policy calls is linked, so only what it calls is imported. */
#include "postern.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ------------------------------------------------------------------------- memory */

/* What the gateway hands over stands in blocks that are given back when a phase ends; the first is
 * kept. */
#define BLOCK_BYTES ((size_t)16 << 10)

typedef struct block {
  struct block *next;
  size_t size, used;
} block;

static block *blocks;

static void *take(size_t align, size_t size) {
  if (blocks != NULL) {
    size_t at = ((size_t)(blocks + 1) + blocks->used + align - 1) & ~(align - 1);
    size_t used = at - (size_t)(blocks + 1) + size;
    if (used >= size && used <= blocks->size) {
      blocks->used = used;
      return (void *)at;
    }
  }
  if (size > (size_t)1 << 30) abort();
  size_t room = size + align > BLOCK_BYTES ? size + align : BLOCK_BYTES;
  block *fresh = malloc(sizeof *fresh + room);
  if (fresh == NULL) abort();
  *fresh = (block){.next = blocks, .size = room, .used = 0};
  blocks = fresh;
  return take(align, size);
}

static void give_back(void) {
  while (blocks != NULL && blocks->next != NULL) {
    block *next = blocks->next;
    free(blocks);
    blocks = next;
  }
  if (blocks != NULL) blocks->used = 0;
}

/* The gateway asks for memory here. The generated function, which is weaker, would leave it to the
 * policy to free. */
__attribute__((__export_name__("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size,
                                                                    size_t align, size_t size) {
  if (size == 0) return (void *)align;
  void *fresh = take(align, size);
  if (old != NULL) memcpy(fresh, old, old_size < size ? old_size : size);
  return fresh;
}

/* The interface is put into the module when it is made a component. */
void __component_type_object_force_link_postern(void) {}

/* What is handed over is freed by the generated code, so it is always a copy. */
static void *copy_bytes(const void *bytes, size_t len) {
  if (len == 0) return NULL;
  void *copy = malloc(len);
  if (copy == NULL) abort();
  return memcpy(copy, bytes, len);
}

static postern_text copied(postern_text text) {
  return (postern_text){copy_bytes(text.ptr, text.len), text.len};
}

postern_text postern_keep(postern_text text) { return copied(text); }

/* ------------------------------------------------------------------------- texts */

static postern_text text_of(const char *s) { return (postern_text){(uint8_t *)s, strlen(s)}; }

bool postern_text_equal(postern_text a, postern_text b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool postern_text_is(postern_text text, const char *other) {
  return postern_text_equal(text, text_of(other));
}

bool postern_text_starts_with(postern_text text, const char *prefix) {
  size_t len = strlen(prefix);
  return text.len >= len && memcmp(text.ptr, prefix, len) == 0;
}

/* ------------------------------------------------------------------------- exports */

__attribute__((weak)) const char *policy_configure(postern_text config, postern_setup *setup) {
  (void)config, (void)setup;
  return NULL;
}
__attribute__((weak)) bool policy_select(const postern_view *view, postern_text *upstream) {
  (void)view, (void)upstream;
  return false;
}
__attribute__((weak)) postern_action policy_on_request(const postern_view *view) {
  (void)view;
  return POSTERN_GO_ON;
}
__attribute__((weak)) postern_action policy_on_request_body(uint64_t length, bool truncated) {
  (void)length, (void)truncated;
  return POSTERN_GO_ON;
}
__attribute__((weak)) postern_chunk_action policy_on_request_chunk(postern_bytes chunk, bool last) {
  (void)chunk, (void)last;
  return (postern_chunk_action){.kind = POSTERN_PASS};
}
__attribute__((weak)) postern_action policy_on_response(const postern_view *view) {
  (void)view;
  return POSTERN_GO_ON;
}
__attribute__((weak)) postern_action policy_on_response_body(uint64_t length, bool truncated) {
  (void)length, (void)truncated;
  return POSTERN_GO_ON;
}
__attribute__((weak)) postern_chunk_action policy_on_response_chunk(postern_bytes chunk,
                                                                    bool last) {
  (void)chunk, (void)last;
  return (postern_chunk_action){.kind = POSTERN_PASS};
}
__attribute__((weak)) void policy_on_log(const postern_summary *summary) { (void)summary; }
__attribute__((weak)) void policy_on_tick(void) {}
__attribute__((weak)) bool policy_key_authorization(postern_text host, postern_text token,
                                                    postern_text *answer) {
  (void)host, (void)token, (void)answer;
  return false;
}

static postern_list_string_t view_names(const postern_text *names, size_t count) {
  postern_list_string_t list = {NULL, count};
  if (count == 0) return list;
  list.ptr = malloc(count * sizeof *list.ptr);
  if (list.ptr == NULL) abort();
  for (size_t i = 0; i < count; i++) list.ptr[i] = copied(names[i]);
  return list;
}

bool exports_postern_plugin_lifecycle_configure(postern_string_t *config,
                                                exports_postern_plugin_lifecycle_spec_t *ret,
                                                postern_string_t *err) {
  postern_setup setup = {0};
  const char *refusal = policy_configure(*config, &setup);
  if (refusal != NULL) {
    *err = copied(text_of(refusal));
  } else {
    *ret = (exports_postern_plugin_lifecycle_spec_t){
        .request_view = view_names(setup.request_view, setup.request_view_count),
        .response_view = view_names(setup.response_view, setup.response_view_count),
        .request_body = setup.request_chunks,
        .response_body = setup.response_chunks,
        .tick_ms = setup.tick_ms,
    };
  }
  give_back();
  return refusal == NULL;
}

bool exports_postern_plugin_route_phase_select(exports_postern_plugin_route_phase_view_t *request,
                                               postern_string_t *ret) {
  postern_text upstream = {NULL, 0};
  bool is_chosen = policy_select(request, &upstream);
  if (is_chosen) *ret = copied(upstream);
  give_back();
  return is_chosen;
}

static void decide(postern_action action, postern_plugin_types_action_t *ret) {
  switch (action.kind) {
  case POSTERN_RESPOND: {
    postern_plugin_types_list_field_t headers = {NULL, action.header_count};
    if (headers.len > 0) {
      headers.ptr = malloc(headers.len * sizeof *headers.ptr);
      if (headers.ptr == NULL) abort();
    }
    for (size_t i = 0; i < headers.len; i++) {
      headers.ptr[i].name = copied(action.headers[i].name);
      headers.ptr[i].value = copied(action.headers[i].value);
    }
    ret->tag = POSTERN_PLUGIN_TYPES_ACTION_RESPOND;
    ret->val.respond.status = action.status;
    ret->val.respond.headers = headers;
    ret->val.respond.body.ptr = copy_bytes(action.body.ptr, action.body.len);
    ret->val.respond.body.len = action.body.len;
    break;
  }
  case POSTERN_NEED_BODY:
    ret->tag = POSTERN_PLUGIN_TYPES_ACTION_NEED_BODY;
    ret->val.need_body.limit = action.limit;
    ret->val.need_body.on_overflow = action.truncate ? POSTERN_PLUGIN_TYPES_OVERFLOW_TRUNCATE
                                                     : POSTERN_PLUGIN_TYPES_OVERFLOW_REJECT;
    break;
  case POSTERN_ABORT:
    ret->tag = POSTERN_PLUGIN_TYPES_ACTION_ABORT;
    break;
  case POSTERN_NEXT:
    ret->tag = POSTERN_PLUGIN_TYPES_ACTION_NEXT;
    break;
  }
  give_back();
}

static void decide_chunk(postern_chunk_action action, postern_plugin_types_chunk_action_t *ret) {
  switch (action.kind) {
  case POSTERN_REPLACE:
    ret->tag = POSTERN_PLUGIN_TYPES_CHUNK_ACTION_REPLACE;
    ret->val.replace.ptr = copy_bytes(action.bytes.ptr, action.bytes.len);
    ret->val.replace.len = action.bytes.len;
    break;
  case POSTERN_ABORT_BODY:
    ret->tag = POSTERN_PLUGIN_TYPES_CHUNK_ACTION_ABORT;
    break;
  case POSTERN_PASS:
    ret->tag = POSTERN_PLUGIN_TYPES_CHUNK_ACTION_PASS;
    break;
  }
  give_back();
}

void exports_postern_plugin_request_phase_on_request(
    exports_postern_plugin_request_phase_view_t *request,
    exports_postern_plugin_request_phase_action_t *ret) {
  decide(policy_on_request(request), ret);
}
void exports_postern_plugin_request_body_phase_on_request_body(
    uint64_t length, bool truncated, exports_postern_plugin_request_body_phase_action_t *ret) {
  decide(policy_on_request_body(length, truncated), ret);
}
void exports_postern_plugin_request_stream_on_request_chunk(
    postern_list_u8_t *chunk, bool last,
    exports_postern_plugin_request_stream_chunk_action_t *ret) {
  decide_chunk(policy_on_request_chunk(*chunk, last), ret);
}
void exports_postern_plugin_response_phase_on_response(
    exports_postern_plugin_response_phase_view_t *response,
    exports_postern_plugin_response_phase_action_t *ret) {
  decide(policy_on_response(response), ret);
}
void exports_postern_plugin_response_body_phase_on_response_body(
    uint64_t length, bool truncated, exports_postern_plugin_response_body_phase_action_t *ret) {
  decide(policy_on_response_body(length, truncated), ret);
}
void exports_postern_plugin_response_stream_on_response_chunk(
    postern_list_u8_t *chunk, bool last,
    exports_postern_plugin_response_stream_chunk_action_t *ret) {
  decide_chunk(policy_on_response_chunk(*chunk, last), ret);
}
void exports_postern_plugin_log_phase_on_log(exports_postern_plugin_log_phase_summary_t *summary) {
  policy_on_log(summary);
  give_back();
}
void exports_postern_plugin_background_on_tick(void) {
  policy_on_tick();
  give_back();
}
bool exports_postern_plugin_challenge_phase_key_authorization(postern_string_t *host,
                                                              postern_string_t *token,
                                                              postern_string_t *ret) {
  postern_text answer = {NULL, 0};
  bool is_ours = policy_key_authorization(*host, *token, &answer);
  if (is_ours) *ret = copied(answer);
  give_back();
  return is_ours;
}

/* A policy that writes DNS records defines these itself, as bind/postern.h declares them, and
 * allocates what it hands over. */
__attribute__((weak)) bool exports_postern_plugin_dns_solver_supports(postern_string_t *zone) {
  (void)zone;
  return false;
}
static bool not_supported(postern_string_t *err) {
  *err = copied(POSTERN_TEXT("not supported"));
  return false;
}
__attribute__((weak)) bool
exports_postern_plugin_dns_solver_present(exports_postern_plugin_dns_solver_txt_record_t *txt,
                                          exports_postern_plugin_dns_solver_progress_t *ret,
                                          postern_string_t *err) {
  (void)txt, (void)ret;
  return not_supported(err);
}
__attribute__((weak)) bool
exports_postern_plugin_dns_solver_poll(exports_postern_plugin_dns_solver_txt_record_t *txt,
                                       exports_postern_plugin_dns_solver_progress_t *ret,
                                       postern_string_t *err) {
  (void)txt, (void)ret;
  return not_supported(err);
}
__attribute__((weak)) bool
exports_postern_plugin_dns_solver_cleanup(exports_postern_plugin_dns_solver_txt_record_t *txt,
                                          postern_string_t *err) {
  (void)txt;
  return not_supported(err);
}

/* ------------------------------------------------------------------------- imports */

void postern_fail(const char *why) {
  postern_log_error(text_of(why));
  abort();
}

void postern_must(bool was_done) {
  if (!was_done) postern_fail("an edit was refused");
}

bool postern_request_get(postern_text name, postern_text *value) {
  return postern_plugin_request_get(&name, value);
}

static postern_text trimmed(postern_text text) {
  while (text.len > 0 && text.ptr[0] == ' ') text.ptr++, text.len--;
  while (text.len > 0 && text.ptr[text.len - 1] == ' ') text.len--;
  return text;
}

bool postern_request_cookie(postern_text name, postern_text *value) {
  postern_text cookie = POSTERN_TEXT("cookie");
  postern_list_string_t fields;
  postern_plugin_request_get_all(&cookie, &fields);
  for (size_t i = 0; i < fields.len; i++) {
    postern_text rest = fields.ptr[i];
    while (rest.len > 0) {
      uint8_t *end = memchr(rest.ptr, ';', rest.len);
      postern_text pair = {rest.ptr, end == NULL ? rest.len : (size_t)(end - rest.ptr)};
      size_t taken = end == NULL ? rest.len : pair.len + 1;
      rest.ptr += taken, rest.len -= taken;
      pair = trimmed(pair);
      uint8_t *equals = memchr(pair.ptr, '=', pair.len);
      if (equals == NULL) continue;
      postern_text found = {pair.ptr, (size_t)(equals - pair.ptr)};
      if (postern_text_equal(found, name)) {
        *value = (postern_text){equals + 1, pair.len - found.len - 1};
        return true;
      }
    }
  }
  return false;
}

postern_text postern_request_method(void) {
  postern_text method;
  postern_plugin_request_method(&method);
  return method;
}
postern_text postern_request_path(void) {
  postern_text path;
  postern_plugin_request_path(&path);
  return path;
}
postern_text postern_request_authority(void) {
  postern_text authority;
  postern_plugin_request_authority(&authority);
  return authority;
}
bool postern_request_set(postern_text name, postern_text value) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_request_set(&name, &value, &error);
}
bool postern_request_append(postern_text name, postern_text value) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_request_append(&name, &value, &error);
}
bool postern_request_remove(postern_text name) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_request_remove(&name, &error);
}
bool postern_request_set_path(postern_text path) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_request_set_path(&path, &error);
}
bool postern_request_set_upstream(postern_text name) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_request_set_upstream(&name, &error);
}

uint16_t postern_response_status(void) { return postern_plugin_response_status(); }
bool postern_response_get(postern_text name, postern_text *value) {
  return postern_plugin_response_get(&name, value);
}
bool postern_response_set(postern_text name, postern_text value) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_response_set(&name, &value, &error);
}
bool postern_response_append(postern_text name, postern_text value) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_response_append(&name, &value, &error);
}
bool postern_response_remove(postern_text name) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_response_remove(&name, &error);
}
bool postern_response_set_status(uint16_t status) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_response_set_status(status, &error);
}

bool postern_set_state(postern_bytes state) {
  postern_plugin_types_edit_error_t error;
  return postern_plugin_exchange_set_state(&state, &error);
}
postern_bytes postern_state(void) {
  postern_bytes state;
  postern_plugin_exchange_state(&state);
  return state;
}

static void log_line(postern_plugin_log_level_t level, postern_text message) {
  postern_list_tuple2_string_string_t fields = {NULL, 0};
  postern_plugin_log_write(level, &message, &fields);
}
void postern_log_debug(postern_text message) { log_line(POSTERN_PLUGIN_LOG_LEVEL_DEBUG, message); }
void postern_log_info(postern_text message) { log_line(POSTERN_PLUGIN_LOG_LEVEL_INFO, message); }
void postern_log_warn(postern_text message) { log_line(POSTERN_PLUGIN_LOG_LEVEL_WARN, message); }
void postern_log_error(postern_text message) { log_line(POSTERN_PLUGIN_LOG_LEVEL_ERROR, message); }

uint64_t postern_random(void) { return postern_plugin_random_number(); }

bool postern_send(const postern_call *call, postern_answer *answer) {
  postern_plugin_callout_call_t sent = {
      .upstream = call->upstream,
      .method = call->method.len > 0 ? call->method : POSTERN_TEXT("GET"),
      .path = call->path,
      .headers = {(postern_field *)call->headers, call->header_count},
      .body = call->body,
      .timeout_ms = call->timeout_ms,
      .max_response_bytes = call->max_response_bytes,
  };
  postern_plugin_callout_call_error_t error;
  return postern_plugin_callout_send(&sent, answer, &error);
}

bool postern_answer_get(const postern_answer *answer, const char *name, postern_text *value) {
  for (size_t i = 0; i < answer->headers.len; i++) {
    postern_field field = answer->headers.ptr[i];
    bool is_it = field.name.len == strlen(name) &&
                 strncasecmp((const char *)field.name.ptr, name, field.name.len) == 0;
    if (is_it) {
      *value = field.value;
      return true;
    }
  }
  return false;
}
