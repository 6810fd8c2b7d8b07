"""Words for the codes of the ledger: states, outcomes, reasons, repairs. Vietnamese first, English beside it.

A code without words here is shown as the code; a newer plugin may bring codes this page has not met.
"""

from __future__ import annotations

Pair = tuple[str, str]

STATES: dict[str, Pair] = {
    "waiting": ("chờ lượt trước", "waiting for the one before"),
    "pending": ("chờ gửi", "waiting to be sent"),
    "leased": ("đã nhận việc", "taken by a worker"),
    "sending": ("đang gửi", "being sent"),
    "accepted": ("bên nhận đã tiếp nhận", "accepted by the receiver"),
    "delivered": ("đã tới nơi", "delivered"),
    "dead": ("đã dừng gửi", "given up"),
    "unknown": ("không rõ kết quả", "outcome unknown"),
    "cancelled": ("đã hủy", "cancelled"),
    "open": ("đang chờ hoặc đang gửi", "waiting or being sent"),
}
#: Where addresses are phones, people say it otherwise.
STATES_BY_CHANNEL: dict[tuple[str, str], Pair] = {
    ("phone", "accepted"): ("nhà mạng đã nhận", "accepted by the carrier"),
    ("phone", "delivered"): ("đã tới máy", "arrived on the phone"),
}

CONNECTION_STATES: dict[str, Pair] = {
    "open": ("đang chạy", "running"),
    "paused": ("tạm dừng", "paused"),
    "breaker_open": ("tạm ngắt do lỗi liên tiếp", "left alone after repeated failures"),
    "waiting_until": ("chờ theo yêu cầu của bên nhận", "waiting as the receiver asked"),
    "not_opened": ("không mở được", "could not be opened"),
}

OUTCOMES: dict[str, Pair] = {
    "delivered": ("đã tới nơi", "delivered"),
    "accepted": ("bên nhận đã tiếp nhận", "accepted"),
    "retry_later": ("chưa được, sẽ thử lại", "not now, to be tried again"),
    "ambiguous": ("không có trả lời, có thể đã tới", "no answer, it may have arrived"),
    "refused": ("bên nhận từ chối", "refused"),
    "unknown": ("không rõ kết quả", "outcome unknown"),
    "lost": ("bị ngắt giữa chừng", "cut off half-way"),
    "diverted": ("chuyển sang nơi gửi khác", "handed to another destination"),
}

RECEIPTS: dict[str, Pair] = {
    "awaited": ("đang đợi báo nhận", "receipt awaited"),
    "delivered": ("đã tới nơi", "delivered"),
    "failed": ("không tới nơi", "failed"),
    "interim": ("đang trên đường", "on its way"),
}

RUNS: dict[str, Pair] = {
    "due": ("đến hạn", "due"),
    "running": ("đang chạy", "running"),
    "done": ("xong", "done"),
    "failed": ("không xong", "failed"),
}

PAUSED_BY: dict[str, Pair] = {
    "operator": ("do người vận hành", "by a person"),
    "hub": ("do hệ thống", "by the hub"),
    "file": ("theo cấu hình", "by its configuration"),
}
PRIORITIES: tuple[Pair, ...] = (("khẩn", "urgent"), ("thường", "normal"), ("hàng loạt", "bulk"))

REASONS: dict[str, Pair] = {
    "plugin_blocks": (
        "phần mở rộng của kết nối này nhiều lần làm cả hub đứng lại",
        "the plugin of this connection has stopped the whole hub again and again",
    ),
    "plugin_spawns": (
        "phần mở rộng của kết nối này mở việc không ngừng",
        "the plugin of this connection starts tasks without end",
    ),
    "plugin_leaks": (
        "phần mở rộng của kết nối này giữ bộ nhớ không trả lại",
        "the plugin of this connection takes memory and does not give it back",
    ),
    # the hub's own
    "expired": ("quá hạn", "expired"),
    "unresolved": ("không rõ kết quả quá lâu, không ai xử lý", "unknown for too long, nobody resolved it"),
    "no_receipt": ("không có báo nhận trong thời hạn", "no receipt in its time"),
    "late_receipt": ("báo nhận đến muộn", "a late receipt"),
    "poison": ("làm hệ thống dừng đột ngột nhiều lần", "crashed the hub again and again"),
    "crashed": ("hệ thống dừng đột ngột trước khi gửi", "the hub crashed before sending"),
    "crashed_while_sending": ("hệ thống dừng đột ngột khi đang gửi", "the hub crashed while sending"),
    "batch_stopped": ("đợt này đã được người vận hành dừng", "a person stopped its batch"),
    "stopped": ("hệ thống dừng theo lệnh", "the hub was stopped"),
    "stopped_while_sending": ("hệ thống dừng theo lệnh khi đang gửi", "the hub was stopped while sending"),
    "grant_ended": ("không còn quyền xem trường dữ liệu", "the field grant has ended"),
    "erased": ("dữ liệu của người này đã được xóa", "this person's data was erased"),
    "no_address": ("không có địa chỉ nhận", "no address"),
    "body_changed": ("nội dung khác với lần thử đầu", "the body differs from the first try"),
    "diverted": ("chuyển sang nơi gửi khác", "handed to another destination"),
    "may_have_left": ("có thể đã tới bên nhận, nên không chuyển đi nơi khác", "it may have arrived, so it stays here"),
    "no_such_destination": ("cấu hình không còn điểm đến này", "this destination is no longer configured"),
    "lease_lost": ("lượt nhận việc đã hết hạn", "the lease was lost"),
    "instant_missed": ("lỡ thời điểm gửi đã định", "its moment to be sent had passed"),
    "plugin_error": ("phần mở rộng báo lỗi", "the plugin raised an error"),
    "conflict": ("dữ liệu vừa được thay đổi", "the data was being changed"),
    "busy": ("sổ cái đang bận", "the ledger was busy"),
    "file_gone": ("tệp cấu hình không còn dùng được", "its configuration file is gone"),
    # the wire
    "deadline": ("hết thời gian của lần thử", "the try ran out of time"),
    "timeout": ("bên nhận không trả lời kịp", "no answer in time"),
    "dns_timeout": ("tra tên máy chủ quá lâu", "looking up the host name took too long"),
    "connect_timeout": ("không nối được trong thời hạn", "no connection in time"),
    "tls_timeout": ("bắt tay TLS quá lâu", "the TLS handshake took too long"),
    "too_slow": ("trả lời quá chậm", "the answer came too slowly"),
    "dns": ("không tìm thấy tên máy chủ", "the host name was not found"),
    "tls": ("lỗi chứng thư TLS", "TLS failed"),
    "tls_failed": ("lỗi chứng thư TLS", "TLS failed"),
    "connect": ("không nối được tới bên nhận", "could not connect"),
    "connection_refused": ("bên nhận từ chối kết nối", "the connection was refused"),
    "blocked_address": ("địa chỉ không được phép nối tới", "the address is not allowed"),
    "url": ("địa chỉ không đúng", "the URL is wrong"),
    "bad_answer": ("trả lời không đúng giao thức", "the answer broke the protocol"),
    "disconnected": ("mất kết nối khi đang trao đổi", "the connection was lost"),
    "gone": ("bên nhận báo không nhận nữa (HTTP 410)", "the receiver wants nothing more (HTTP 410)"),
    "stopped_by_partner": ("bên nhận yêu cầu dừng (webhook-stop)", "the receiver said stop (webhook-stop)"),
    "failing_too_long": ("lỗi liên tục 5 ngày", "failing for five days"),
    "not_granted": ("đơn vị này chưa được quyền xem sự kiện này", "this partner was never granted this event"),
    "filtered": ("không khớp bộ lọc nội dung của địa chỉ nhận", "the endpoint's content filter did not match"),
    "endpoint_removed": ("địa chỉ nhận đã bị bỏ", "the endpoint was removed"),
    "login_refused": ("bị từ chối đăng nhập", "the login was refused"),
    "auth_failed": ("sai tên hoặc mật khẩu", "wrong name or password"),
    "no_answer": ("không có trả lời", "no answer came"),
    "not_bound": ("chưa có phiên với bên nhận", "no session with the receiver"),
    "no_connection": ("không nối được tới bên nhận", "could not connect"),
    "paced": ("giữ đúng tốc độ đã thỏa thuận", "kept to the agreed pace"),
    "throttled": ("bên nhận yêu cầu gửi chậm lại", "the receiver asked to slow down"),
    "no_balance": ("tài khoản ở nhà mạng hết tiền", "the account at the carrier has no money left"),
    "ip_refused": ("nhà mạng không nhận từ địa chỉ IP này", "the carrier does not take this IP address"),
    "account_locked": ("tài khoản ở nhà mạng bị khóa", "the account at the carrier is locked"),
    "no_price_list": ("nhà mạng chưa có bảng giá cho tài khoản", "the carrier has no price list for the account"),
    "template_mismatch": ("nội dung khác mẫu nhà mạng đã duyệt", "the text is not a template the carrier approved"),
    "network_not_registered": (
        "tên gửi chưa đăng ký ở mạng của số này",
        "the sender is not registered at this number's network",
    ),
    "number_blocked": ("số này chặn nhận tin", "the number is blocked"),
    "text_blocked": ("nội dung có từ nhà mạng chặn", "the text holds a word the carrier blocks"),
    "message_length_invalid": ("nhà mạng báo tin quá dài", "the carrier says the message is too long"),
    "type_invalid": ("loại tin không đúng với tài khoản", "the kind of message does not fit the account"),
    "request_invalid": ("nhà mạng không hiểu yêu cầu", "the carrier did not understand the request"),
    "request_id_invalid": ("nhà mạng không nhận mã yêu cầu", "the carrier did not take the request id"),
    "no_such_path": ("đường dẫn ở nhà mạng không đúng", "there is no such path at the other side"),
    "not_reached": ("không nối được tới bên nhận", "could not connect"),
    "token_unavailable": ("chưa lấy được mã truy cập", "no access token was to be had"),
    # people and addresses
    "left_the_union": ("đã thôi là đoàn viên", "has left the union"),
    "same_recipient": ("người này đã được gửi trong cùng đợt", "already sent to this person in the same batch"),
    "address_invalid": ("địa chỉ nhận không hợp lệ", "the address is not valid"),
    "number_invalid": ("số nhận không hợp lệ", "the number is not valid"),
    "opted_out": ("người này đã từ chối nhận", "this person refused such messages"),
    "wrong_person": ("số này là của người khác", "the number belongs to somebody else"),
    "do_not_call": ("số nằm trong danh sách không quảng cáo", "the number is on the Do-Not-Call list"),
    "no_consent": ("chưa có sự đồng ý nhận quảng cáo", "no consent to advertising is on record"),
    "quiet_hours": ("giờ yên lặng, sẽ gửi khi hết giờ", "quiet hours, it goes when they end"),
    "scheduled": ("chưa tới giờ hẹn gửi", "its time has not come yet"),
    "budget_spent": ("đợt gửi đã hết hạn mức chi phí", "its sending has spent its budget"),
    "carriers_full": ("các nhà mạng đang bận, tin chờ tới lượt", "the carriers are busy, it waits for room"),
    "no_carrier": ("chưa có nhà mạng nào dùng được", "no carrier can be used now"),
    "batch_paused": ("đợt gửi đang tạm dừng", "its sending is paused"),
    "daily_limit": ("đủ số tin loại này trong 24 giờ tới số này", "the day's messages of this class to this number"),
    "number_limit": ("đủ số tin trong một giờ tới số này", "the hour's messages to this number"),
    "prefix_limit": ("đủ số tin trong một giờ tới dải số này", "the hour's messages to this block of numbers"),
    "country_not_allowed": ("nước này không được gửi tới", "this country is not reached"),
    "number_premium": ("số dịch vụ tính phí", "a premium number"),
    "not_on_list": ("kết nối đang thử, chỉ gửi tới các số đã nêu", "the connection only reaches the numbers it names"),
    "simulated": ("gửi thử, không tới máy nào", "asked for with a test key: no phone is reached"),
    "class_unknown": ("chưa có quy định cho loại tin này", "no rule holds for this class of messages"),
    "label_missing": ("tin quảng cáo phải bắt đầu bằng nhãn", "an advertisement has to begin with its label"),
    "brandname_required": ("loại tin này phải gửi bằng tên định danh", "this class needs a brandname"),
    "template_not_registered": ("nội dung khác mẫu đã đăng ký với nhà mạng", "not a text the carrier has on file"),
    "not_asked_for": ("tin xác nhận mà không ai vừa từ chối", "a confirmation to somebody who did not just refuse"),
    "text_missing": ("không có nội dung", "there is no text"),
    "sms_too_long": ("nội dung quá dài", "the text is too long"),
    "partly_sent": ("mới gửi được một phần", "only partly sent"),
    "password_refused": ("sai mật khẩu", "wrong password"),
    "system_id_refused": ("sai mã hệ thống", "wrong system id"),
    "sender_refused": ("tên gửi bị từ chối", "the sender name was refused"),
    "carrier_system_error": ("lỗi hệ thống của nhà mạng", "the carrier's system failed"),
    "carrier_queue_full": ("nhà mạng đang quá tải", "the carrier's queue is full"),
    "undeliverable": ("không chuyển được tới máy", "could not be delivered to the phone"),
    "expired_at_carrier": ("quá hạn ở nhà mạng", "expired at the carrier"),
    "rejected_by_carrier": ("nhà mạng từ chối", "rejected by the carrier"),
    "deleted_at_carrier": ("bị xóa ở nhà mạng", "deleted at the carrier"),
    # documents
    "event_type_not_sendable": ("loại sự kiện này không gửi được tới đây", "this event type cannot be sent here"),
    "document_unknown": ("không có văn bản này", "no such document"),
    "document_id_missing": ("thiếu mã văn bản", "the document id is missing"),
    "packet_refused": ("trục từ chối gói tin", "the axis refused the packet"),
    "packet_too_large": ("gói tin quá lớn", "the packet is too large"),
    "packet_not_to_standard": ("gói tin không đúng quy chuẩn", "the packet is not to the standard"),
    "receiver_unknown": ("không có nơi nhận này", "no such receiver"),
    "receiver_locked": ("nơi nhận đang bị khóa", "the receiver is locked"),
    "sender_not_registered": ("nơi gửi chưa đăng ký", "the sender is not registered"),
    "axis_throttled": ("trục yêu cầu gửi chậm lại", "the axis asked to slow down"),
    "axis_error": ("lỗi của trục", "the axis failed"),
    # why all sending is held
    "no_marker": ("sổ cái không có tệp đánh dấu đi kèm", "the ledger has no marker file beside it"),
    "another_identity": (
        "sổ cái được chép từ máy hoặc ổ đĩa khác",
        "the ledger was copied from another machine or disk",
    ),
    "behind_marker": ("sổ cái cũ hơn lần ghi cuối (đã phục hồi)", "the ledger is older than its last write (restored)"),
}

#: Prefix of a reason -> words with ``{rest}``; what follows the colon is a reason of its own or a person's words.
PREFIXES: dict[str, Pair] = {
    "tries_spent": ("đã thử hết số lần, lần cuối: {rest}", "all tries spent, the last: {rest}"),
    "receipt": ("theo báo nhận: {rest}", "by its receipt: {rest}"),
    "resolved": ("người vận hành xử lý: {rest}", "resolved by a person: {rest}"),
}
HTTP_STATUS: Pair = ("bên nhận trả lời HTTP {status}", "the receiver answered HTTP {status}")

#: kind, or kind.reason where a reason needs other words -> what happened, why, what to do now.
REPAIRS: dict[str, tuple[Pair, Pair, Pair]] = {
    "memory_high": (
        ("Hub trên máy {object} dùng quá ngưỡng bộ nhớ.", "The hub on {object} takes more memory than it may."),
        (
            "Không kết nối nào giữ phần lớn bộ nhớ mới tăng, nên chưa kết nối nào bị tạm dừng. {detail}",
            "No connection holds most of what was added, so none was paused. {detail}",
        ),
        (
            "Xem các dòng memory.grown trong nhật ký. Khởi động lại hub là an toàn; nếu lại tăng, gửi nhật ký cho "
            "người viết phần mở rộng, hoặc nâng [worker] memory_mb nếu máy còn bộ nhớ.",
            "Look at the memory.grown lines of the log. Restarting the hub is safe; if it grows again, send the log to "
            "the plugin's author, or raise [worker] memory_mb where the machine has more.",
        ),
    ),
    "destination_paused": (
        ("Đã tạm dừng gửi tới {object}.", "Sending to {object} is paused."),
        ("{reason}. Các lượt gửi được giữ lại, chưa lượt nào mất.", "{reason}. Deliveries are kept, none is lost."),
        (
            "Sửa nguyên nhân cùng bên nhận, rồi cho chạy tiếp bằng lệnh bên dưới.",
            "Mend the cause together with the receiver, then resume with the command below.",
        ),
    ),
    "destination_paused.gone": (
        ("Đã tạm dừng gửi tới {object}.", "Sending to {object} is paused."),
        (
            "{reason}. Các lượt gửi được giữ lại, chưa lượt nào mất.",
            "{reason}. Deliveries are kept, none is lost.",
        ),
        (
            "Hỏi đơn vị đối tác còn nhận không. Còn nhận: sửa địa chỉ nhận trong tệp kết nối rồi cho chạy tiếp. "
            "Không nhận nữa: bỏ đăng ký nhận trong subscriptions.toml.",
            "Ask the partner whether they still want it. If so: correct the address in the connection's file and "
            "resume. If not: remove the subscription from subscriptions.toml.",
        ),
    ),
    "connection_paused": (
        ("Đã tạm dừng kết nối {object}.", "Connection {object} is paused."),
        (
            "{reason}. Các lượt gửi được giữ lại, chưa lượt nào mất, không lượt nào gửi hai lần.",
            "{reason}. Deliveries are kept, none is lost and none is sent twice.",
        ),
        (
            "Sửa nguyên nhân, thử kết nối, rồi cho chạy tiếp bằng lệnh bên dưới.",
            "Mend the cause, check the connection, then resume with the command below.",
        ),
    ),
    "connection_paused.login_refused": (
        ("Đã tạm dừng kết nối {object}.", "Connection {object} is paused."),
        (
            "{reason}. Các lượt gửi được giữ lại, chưa lượt nào mất, không lượt nào gửi hai lần.",
            "{reason}. Deliveries are kept, none is lost and none is sent twice.",
        ),
        (
            "Kiểm tra tên đăng nhập và mật khẩu trong tệp bí mật của kết nối, thử kết nối, rồi cho chạy tiếp.",
            "Check login name and password in the connection's secret file, check the connection, then resume.",
        ),
    ),
    "endpoint_failing": (
        ("Địa chỉ nhận ở kết nối {object} đang lỗi.", "An endpoint of {object} is failing."),
        (
            "{detail} không nhận được sự kiện. Chưa lượt nào mất; sau 5 ngày lỗi liên tục địa chỉ sẽ bị tắt.",
            "{detail} takes no events. Nothing is lost; after five days of failure it is switched off.",
        ),
        (
            "Báo cho đơn vị đối tác kiểm tra máy chủ nhận. Việc này tự khép lại khi gửi được.",
            "Ask the partner to look at the receiving server. This closes by itself once it takes events.",
        ),
    ),
    "carrier_stalled": (
        ("Nhà mạng ở kết nối {object} không trả lời.", "The carrier of connection {object} does not answer."),
        (
            "Có tin chờ gửi nhưng không tin nào được trả lời. Chưa tin nào mất, không tin nào gửi hai lần.",
            "Messages wait and none is answered. None is lost and none is sent twice.",
        ),
        (
            "Thử kết nối, rồi gọi nhà mạng. Việc này tự khép lại khi nhà mạng trả lời.",
            "Check the connection, then call the carrier. This closes by itself with the carrier's next answer.",
        ),
    ),
    "login_refused": (
        ("Không đăng nhập được ở kết nối {object}.", "Connection {object} cannot log in."),
        (
            "Bên kia từ chối tên hoặc mật khẩu. Chưa dữ liệu nào mất.",
            "The other side refused name or password. Nothing is lost.",
        ),
        (
            "Kiểm tra tên đăng nhập và mật khẩu trong tệp bí mật của kết nối, rồi thử kết nối. "
            "Việc này tự khép lại khi đăng nhập được.",
            "Check login name and password in the connection's secret file, then check the connection. "
            "This closes by itself once the login works.",
        ),
    ),
    "key_expiring": (
        ("Khóa API {object} sắp hết hạn.", "API key {object} is about to expire."),
        (
            "Khóa đang được dùng cho: {detail}. Hết hạn thì ứng dụng đó bị từ chối; chưa có gì bị chặn.",
            "It is in use for: {detail}. Once it has expired that application is refused; nothing is refused yet.",
        ),
        (
            "Tạo khóa mới, đưa cho bên dùng, rồi thu hồi khóa cũ. Ngày hết hạn: unionhub keys list.",
            "Make a new key, hand it over, then revoke this one. Its end: unionhub keys list.",
        ),
    ),
    "not_understood": (
        ("Có yêu cầu đến qua {object} chưa đọc được.", "A request through {object} could not be read."),
        (
            "Chữ ký đúng nhưng nội dung khác với thỏa thuận. Yêu cầu đã được giữ nguyên, chưa mất gì.",
            "It is signed as agreed, but its content is not. The request is kept as it came, nothing is lost.",
        ),
        (
            "Hỏi bên gửi có vừa đổi mẫu dữ liệu không, chuyển mã sự kiện cho người phụ trách phần mở rộng; cập nhật"
            " xong thì đọc lại.",
            "Ask the sender whether their format changed and give the event's id to whoever keeps the plugin; once it"
            " is updated, read again.",
        ),
    ),
    "poison": (
        ("Một lượt gửi làm hệ thống dừng đột ngột nhiều lần.", "One delivery crashed the hub again and again."),
        (
            "Lượt này đã được tách riêng và dừng gửi; các lượt khác vẫn chạy.",
            "It was set apart and given up; the others go on.",
        ),
        (
            "Mở lượt gửi, chuyển mã cho người phụ trách phần mở rộng. Khi đã sửa, gửi lại bằng lệnh bên dưới.",
            "Open the delivery and give its id to whoever keeps the plugin. Once mended, replay it with the command.",
        ),
    ),
    "connection_file_gone": (
        ("Kết nối {object} đã tạm dừng.", "Connection {object} is paused."),
        (
            "Cấu hình không còn kết nối này: tệp bị xóa, đổi tên, bị tắt, hoặc phần mở rộng không mở được. "
            "Không có gì bị xóa.",
            "The configuration no longer has it: its file was removed, renamed or disabled, or the plugin could not "
            "open it. Nothing was deleted.",
        ),
        (
            "Nếu vẫn cần: đặt lại tệp trong connections/ rồi khởi động lại; việc này tự khép lại.",
            "If it is still needed: put the file back into connections/ and restart; this closes by itself.",
        ),
    ),
    "backup_failed": (
        ("Sao lưu theo lịch không xong.", "The scheduled backup failed."),
        (
            "{detail}. Sổ cái vẫn nguyên vẹn, các bản sao lưu cũ vẫn còn.",
            "{detail}. The ledger is untouched, older backups are still there.",
        ),
        (
            "Sửa nguyên nhân rồi chạy unionhub db backup để thử. Việc này tự khép lại ở lần sao lưu theo lịch kế tiếp.",
            "Mend the cause and try unionhub db backup. This closes by itself with the next scheduled backup.",
        ),
    ),
    # not rows of the ledger's repairs, but things a person must know of just the same
    "unknown_outcomes": (
        ("Số lượt gửi không rõ kết quả: {count}.", "Deliveries whose outcome is unknown: {count}."),
        (
            "Đã gửi đi nhưng không có trả lời. Hệ thống không tự gửi lại, để không ai nhận hai lần.",
            "They left and no answer came. The hub does not send them again, so that nobody gets them twice.",
        ),
        (
            "Hỏi bên nhận đã có chưa, rồi xử lý từng lượt. Báo nhận đến muộn vẫn tự khép lại; sau {days} ngày "
            "không xử lý thì chuyển thành đã dừng gửi.",
            "Ask the receiver whether they have them, then resolve each. A late receipt still closes one by itself; "
            "after {days} days without a word they are given up.",
        ),
    ),
    "held": (
        ("Đang giữ: chưa gửi gì.", "On hold: nothing is being sent."),
        (
            "{reason}. Hệ thống vẫn nhận và lưu đầy đủ; gửi ngay lúc này có thể thành gửi hai lần.",
            "{reason}. Everything is still received and kept; sending now could send things twice.",
        ),
        (
            "Bảo đảm hệ thống cũ đã tắt hẳn, rồi cho gửi tiếp bằng lệnh bên dưới.",
            "Make sure that the old installation is off for good, then release with the command below.",
        ),
    ),
    "plugin_left_out": (
        ("Phần mở rộng {object} không được nạp.", "Plugin {object} was left out."),
        ("{detail}. Các phần khác vẫn chạy.", "{detail}. Everything else is running."),
        (
            "Chuyển thông báo này cho người phụ trách phần mở rộng, sửa rồi khởi động lại.",
            "Give this message to whoever keeps the plugin, mend it and restart.",
        ),
    ),
    "other": (
        ("Cần xử lý ở {object}.", "Something needs a person at {object}."),
        ("{detail}", "{detail}"),
        (
            "Làm theo hướng dẫn của loại kết nối; việc này tự khép lại khi đã xong.",
            "Follow the guide of the connector type; this closes by itself once done.",
        ),
    ),
}
