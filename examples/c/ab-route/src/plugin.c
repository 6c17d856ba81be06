/* Sends a part of the clients to a second upstream, and keeps each client where it is by a cookie. */
#include <stdio.h>

#include "json.h"
#include "postern.h"

static postern_text upstream_a, upstream_b, cookie;
/* How many of a hundred new clients go to b. */
static uint32_t percent;

const char *policy_configure(postern_text config, postern_setup *setup) {
  (void)setup;
  postern_json walk = postern_json_open(config);
  postern_text key, value;
  while (postern_json_next(&walk, &key, &value)) {
    if (postern_text_is(key, "percent")) {
      if (!postern_json_number(value, &percent) || percent > 100) {
        return "percent: not a number from 0 to 100";
      }
      continue;
    }
    postern_text *text = postern_text_is(key, "a")        ? &upstream_a
                         : postern_text_is(key, "b")      ? &upstream_b
                         : postern_text_is(key, "cookie") ? &cookie
                                                          : NULL;
    if (text == NULL) return "unknown key; known are a, b, percent and cookie";
    if (!postern_json_text(value, &value)) return "a, b and cookie are texts";
    *text = postern_keep(value);
  }
  if (walk.is_bad || !walk.is_object) return "not an object";
  if (upstream_a.len == 0 || upstream_b.len == 0 || cookie.len == 0) {
    return "a, b and cookie are needed";
  }
  return NULL;
}

bool policy_select(const postern_view *view, postern_text *upstream) {
  (void)view;
  postern_text side;
  bool is_known = postern_request_cookie(cookie, &side) &&
                  (postern_text_is(side, "a") || postern_text_is(side, "b"));
  if (!is_known) {
    /* A new client, or one that made the cookie up. The response has to tell it. */
    side = postern_random() % 100 < percent ? POSTERN_TEXT("b") : POSTERN_TEXT("a");
    postern_must(postern_set_state((postern_bytes){side.ptr, side.len}));
  }
  *upstream = postern_text_is(side, "b") ? upstream_b : upstream_a;
  return true;
}

postern_action policy_on_response(const postern_view *view) {
  (void)view;
  postern_bytes side = postern_state();
  if (side.len == 0) return POSTERN_GO_ON;
  char value[256];
  int len = snprintf(value, sizeof value, "%.*s=%.*s; Path=/; Max-Age=86400; SameSite=Lax",
                     (int)cookie.len, (char *)cookie.ptr, (int)side.len, (char *)side.ptr);
  if (len < 0 || (size_t)len >= sizeof value) postern_fail("the cookie's name is too long");
  postern_text text = {(uint8_t *)value, (size_t)len};
  postern_must(postern_response_append(POSTERN_TEXT("set-cookie"), text));
  return POSTERN_GO_ON;
}
