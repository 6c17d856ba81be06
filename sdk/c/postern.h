/* Policies for the Postern gateway, in C.
 *
 * A policy defines the functions below whose phases plugin.toml lists, and calls the gateway
 * through the functions of this file, or through those of bind/postern.h, which have every
 * interface of wit/host.wit.
 *
 * Memory: what the gateway hands over (the values of `get`, the configuration, an answer) lives
 * until the phase ends, and nobody frees it. What a policy hands over is copied before the phase
 * ends, so it may be static, on the stack of the phase, or the gateway's own.
 */
#ifndef POSTERN_PLUGIN_H
#define POSTERN_PLUGIN_H

#include "bind/postern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A text: bytes in UTF-8 and their number, with no zero at the end. */
typedef postern_string_t postern_text;
typedef postern_list_u8_t postern_bytes;
typedef postern_plugin_types_field_t postern_field;
/* The values that the set-up asked for, in its order. An item may not be there (`is_some`). */
typedef postern_plugin_types_view_t postern_view;

/* The text of a literal. */
#define POSTERN_TEXT(literal) ((postern_text){(uint8_t *)(literal), sizeof(literal) - 1})

bool postern_text_is(postern_text text, const char *other);
bool postern_text_equal(postern_text a, postern_text b);
bool postern_text_starts_with(postern_text text, const char *prefix);
/* A copy that outlives the phase, for what `configure` keeps. */
postern_text postern_keep(postern_text text);

/* ------------------------------------------------------------- what a policy defines */

/* What the policy wants to be given. All zero is nothing. The names are those of `request-view` and
 * `response-view` in wit/phases.wit. */
typedef struct {
  const postern_text *request_view;
  size_t request_view_count;
  const postern_text *response_view;
  size_t response_view_count;
  /* Whether `policy_on_request_chunk` is called. */
  bool request_chunks;
  bool response_chunks;
  /* Time between two calls of `policy_on_tick`: 100 at least, or 0 for never. */
  uint32_t tick_ms;
} postern_setup;

typedef enum { POSTERN_NEXT, POSTERN_RESPOND, POSTERN_NEED_BODY, POSTERN_ABORT } postern_kind;

typedef struct {
  postern_kind kind;
  /* POSTERN_RESPOND */
  uint16_t status;
  const postern_field *headers;
  size_t header_count;
  postern_text body;
  /* POSTERN_NEED_BODY: how many bytes to hold, and whether the first part of a longer body will
   * do. */
  uint32_t limit;
  bool truncate;
} postern_action;

#define POSTERN_GO_ON ((postern_action){.kind = POSTERN_NEXT})

typedef enum { POSTERN_PASS, POSTERN_REPLACE, POSTERN_ABORT_BODY } postern_chunk_kind;

typedef struct {
  postern_chunk_kind kind;
  postern_bytes bytes;
} postern_chunk_action;

typedef exports_postern_plugin_log_phase_summary_t postern_summary;

/* Reads the plugin's section of the gateway's configuration, which is JSON; json.h reads it. Called
 * once in each instance. The answer is NULL, or why the configuration is refused. */
const char *policy_configure(postern_text config, postern_setup *setup);

/* "route": whether the policy names the upstream, and which. */
bool policy_select(const postern_view *view, postern_text *upstream);
/* "request" */
postern_action policy_on_request(const postern_view *view);
/* "request-body" */
postern_action policy_on_request_body(uint64_t length, bool truncated);
/* "request-stream" */
postern_chunk_action policy_on_request_chunk(postern_bytes chunk, bool last);
/* "response" */
postern_action policy_on_response(const postern_view *view);
/* "response-body" */
postern_action policy_on_response_body(uint64_t length, bool truncated);
/* "response-stream" */
postern_chunk_action policy_on_response_chunk(postern_bytes chunk, bool last);
/* "log" */
void policy_on_log(const postern_summary *summary);
/* "background" */
void policy_on_tick(void);
/* "challenge": whether the token is this policy's, and the key authorization. */
bool policy_key_authorization(postern_text host, postern_text token, postern_text *answer);

/* --------------------------------------------------------- what the gateway can do */

/* Ends the call: the policy could not do its work. It is logged, and the exchange gets what the
 * operator chose for a plugin that fails, 503 by default. */
_Noreturn void postern_fail(const char *why);
/* Ends the call if an edit was refused. */
void postern_must(bool was_done);

/* Whether there is such a field, and its value; several values are joined with ", ". */
bool postern_request_get(postern_text name, postern_text *value);
bool postern_request_cookie(postern_text name, postern_text *value);
postern_text postern_request_method(void);
/* Path and query. */
postern_text postern_request_path(void);
postern_text postern_request_authority(void);
/* Edits answer whether they were made. */
bool postern_request_set(postern_text name, postern_text value);
bool postern_request_append(postern_text name, postern_text value);
bool postern_request_remove(postern_text name);
bool postern_request_set_path(postern_text path);
bool postern_request_set_upstream(postern_text name);

uint16_t postern_response_status(void);
bool postern_response_get(postern_text name, postern_text *value);
bool postern_response_set(postern_text name, postern_text value);
bool postern_response_append(postern_text name, postern_text value);
bool postern_response_remove(postern_text name);
bool postern_response_set_status(uint16_t status);

/* Bytes, at most 4 KiB, for the later phases of this plugin. */
bool postern_set_state(postern_bytes state);
postern_bytes postern_state(void);

void postern_log_debug(postern_text message);
void postern_log_info(postern_text message);
void postern_log_warn(postern_text message);
void postern_log_error(postern_text message);

/* Fit for secrets. */
uint64_t postern_random(void);

/* A request to an upstream that was granted to the plugin. GET without a method. */
typedef struct {
  postern_text upstream;
  postern_text method;
  postern_text path;
  const postern_field *headers;
  size_t header_count;
  postern_bytes body;
  /* 0: what is left of the plugin's wall time. */
  uint32_t timeout_ms;
  /* 0: 1 MiB. */
  uint32_t max_response_bytes;
} postern_call;

typedef postern_plugin_callout_reply_t postern_answer;

/* Waits for the answer; the gateway goes on meanwhile. False: there is none. */
bool postern_send(const postern_call *call, postern_answer *answer);
/* The first value of a field of an answer. */
bool postern_answer_get(const postern_answer *answer, const char *name, postern_text *value);

#ifdef __cplusplus
}
#endif
#endif
