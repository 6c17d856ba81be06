/* Lets a request pass if an authentication service says that its bearer token is good. */
#include "json.h"
#include "postern.h"

/* The upstream that is asked, which has to be granted to the plugin, and where: it answers 200 with
 * the field x-user for a good token, and 401 for another. */
static postern_text upstream, path;

const char *policy_configure(postern_text config, postern_setup *setup) {
  static const postern_text view[] = {POSTERN_TEXT("authorization")};
  setup->request_view = view;
  setup->request_view_count = 1;
  postern_json walk = postern_json_open(config);
  postern_text key, value;
  while (postern_json_next(&walk, &key, &value)) {
    postern_text *text = postern_text_is(key, "upstream") ? &upstream
                         : postern_text_is(key, "path")   ? &path
                                                          : NULL;
    if (text == NULL) return "unknown key; known are upstream and path";
    if (!postern_json_text(value, &value)) return "upstream and path are texts";
    *text = postern_keep(value);
  }
  if (walk.is_bad || !walk.is_object) return "not an object";
  return upstream.len == 0 || path.len == 0 ? "upstream and path are needed" : NULL;
}

static postern_action denied(void) {
  static const postern_field headers[] = {
      {POSTERN_TEXT("www-authenticate"), POSTERN_TEXT("Bearer")},
      {POSTERN_TEXT("content-type"), POSTERN_TEXT("text/plain; charset=utf-8")},
  };
  return (postern_action){
      .kind = POSTERN_RESPOND,
      .status = 401,
      .headers = headers,
      .header_count = 2,
      .body = POSTERN_TEXT("a valid token is needed\n"),
  };
}

postern_action policy_on_request(const postern_view *view) {
  /* Whatever the client says about itself must not reach the application. */
  postern_must(postern_request_remove(POSTERN_TEXT("x-user")));
  if (view->len == 0 || !view->ptr[0].is_some) return denied();
  postern_text token = view->ptr[0].val;
  if (!postern_text_starts_with(token, "Bearer ")) return denied();
  token.ptr += sizeof "Bearer " - 1, token.len -= sizeof "Bearer " - 1;

  postern_field header = {POSTERN_TEXT("x-token"), token};
  postern_call call = {
      .upstream = upstream,
      .path = path,
      .headers = &header,
      .header_count = 1,
      .timeout_ms = 1000,
  };
  postern_answer answer;
  /* A service that cannot be asked is a fault: the operator says what happens then. */
  if (!postern_send(&call, &answer)) postern_fail("the authentication service cannot be asked");
  postern_text user;
  if (answer.status == 200 && postern_answer_get(&answer, "x-user", &user) && user.len > 0) {
    postern_must(postern_request_set(POSTERN_TEXT("x-user"), user));
    postern_must(postern_request_remove(POSTERN_TEXT("authorization")));
    return POSTERN_GO_ON;
  }
  if (answer.status != 401) postern_fail("the authentication service failed");
  return denied();
}
